"""A run's history -> what happened, in order: starts and restarts, epochs and their checkpoints,
what a person should look at."""

from dataclasses import dataclass

from components.shared.documents.results import EpochLosses, History
from components.shared.figures import plural
from components.write_report import words
from components.write_report.gather import RunFound


@dataclass(frozen=True)
class Happening:
    """One line."""

    step: int
    """Optimizer steps made by then."""
    when: str
    """UTC for a start, else time in training."""
    what: str
    kind: str
    """start, restart, epoch, warning or done: the line's CSS class."""


def timeline(found: RunFound) -> list[Happening]:
    history = found.history
    stored = {checkpoint.epoch: checkpoint.num_bytes for checkpoint in found.checkpoints}
    lines = [*_starts(history), *_epochs(history, stored), *_warnings(found)]
    order = {"start": 0, "restart": 2, "epoch": 1, "warning": 3, "done": 4}
    return sorted(lines, key=lambda each: (each.step, order[each.kind]))


def _starts(history: History) -> list[Happening]:
    lines: list[Happening] = []
    for number, start in enumerate(history.starts):
        on = f"{start.num_processes:,} process{'' if start.num_processes == 1 else 'es'}"
        at = start.at.replace("T", " ").removesuffix("+00:00") + " UTC"
        if number == 0:
            lines.append(Happening(start.step, at, f"training began on {on}", "start"))
        else:
            what = (
                f"training was started again on {on}, from the checkpoint after step {start.step:,}"
            )
            lines.append(Happening(start.step, at, what, "restart"))
    return lines


def _epochs(history: History, stored: dict[int | None, int]) -> list[Happening]:
    """With the time in training where the steps' own is known: held-out loss and saves between them
    are not in it."""
    lines: list[Happening] = []
    for epoch in history.epochs:
        took = [seconds for seconds in history.step_seconds[: epoch.step] if seconds is not None]
        if took:
            when = f"{words.duration(sum(took))} of steps"
        else:
            when = ""
        if epoch.epoch in stored:
            kept = f"checkpoint of {words.size(stored[epoch.epoch])}"
        else:
            kept = "checkpoint not kept"
        lines.append(
            Happening(epoch.step, when, f"epoch {epoch.epoch}: {_held_out(epoch)}{kept}", "epoch")
        )
    return lines


def _held_out(epoch: EpochLosses) -> str:
    if epoch.held_out_loss is None:
        return ""
    return f"held-out loss {epoch.held_out_loss:.4f}, "


def _warnings(found: RunFound) -> list[Happening]:
    history = found.history
    end = history.epochs[-1].step
    lines = [
        Happening(0, "", caution, "warning") for caution in (*found.cautions, *found.plan.cautions)
    ]
    if history.skipped_steps:
        skipped = (
            f"fp16 skipped {plural(history.skipped_steps, 'step')}, whose scaled gradient "
            "overflowed"
        )
        lines.append(Happening(end, "", skipped, "warning"))
    gate = found.evaluation.gate
    for line in () if gate is None else gate.not_met:
        lines.append(Happening(end, "", line, "warning"))
    lines.append(Happening(end, "", f"{found.export.folder}/ verified and evaluated", "done"))
    return lines
