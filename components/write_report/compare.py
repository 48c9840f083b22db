"""Finished runs -> one table and one page: what was asked differently, and what came of it.

python -m components.write_report.compare RUN RUN … [--html FILE]    prints the table as JSON
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from markupsafe import Markup

from components.shared.documents.results import Score
from components.shared.errors import SpecError
from components.shared.html.loss_chart import Scale, grid, line, thinned, ticks
from components.shared.html.page import page_environment
from components.shared.step import open_run, step_log
from components.shared.store.layout import MERGED
from components.shared.tree import leaves
from components.write_report import words
from components.write_report.gather import RunFound, gather
from components.write_report.measured import NAMES, metric_value

MOST_RUNS = 8
"""As many colours as the page can tell apart."""
LEFT_OUT = ("name", "store", "publish")
OF_THEIR_OWN = ("loss", "perplexity", "token_accuracy")
"""Metrics that the table has a row or a field for; all others are `scores`."""
WIDE, NARROW = (760, 300), (380, 260)


@dataclass(frozen=True)
class Compared:
    """One run in the table."""

    label: str
    """Its name, and its store where two have the same name."""
    asked: dict[str, Any]
    """Field of the spec, dotted -> value, for those in which the runs differ."""
    facts: dict[str, Any]
    """What came of it, for programs."""


def compared(runs: Sequence[RunFound]) -> list[Compared]:
    """In the order given. Raises SpecError for fewer than two runs, or more than MOST_RUNS."""
    if not 2 <= len(runs) <= MOST_RUNS:
        raise SpecError(f"compare: got {len(runs)} runs, must be 2 to {MOST_RUNS}")
    flat = [dict(leaves(run.spec.model_dump(mode="json", exclude=set(LEFT_OUT)))) for run in runs]
    fields = [
        key
        for key in dict.fromkeys(key for each in flat for key in each)
        if len({json.dumps(each.get(key)) for each in flat}) > 1
    ]
    return [
        Compared(_label(run, runs), {key: each.get(key) for key in fields}, _facts(run))
        for run, each in zip(runs, flat, strict=True)
    ]


def _label(run: RunFound, runs: Sequence[RunFound]) -> str:
    same = sum(other.spec.name == run.spec.name for other in runs)
    if same == 1:
        return run.spec.name
    return run.uri


def _facts(run: RunFound) -> dict[str, Any]:
    history, evaluation = run.history, run.evaluation
    base, tuned = evaluation.both or (None, None)
    if tuned is None:
        scores = {}
    else:
        scores = tuned.scores
    best = history.best_epoch
    took = [each for each in history.step_seconds if each is not None]
    per_step = run.plan.steps.tokens_per_epoch / run.plan.steps.steps_per_epoch
    return {
        "uri": run.uri,
        "model": run.plan.model.source,
        "method": run.plan.method,
        "trainable_parameters": run.plan.num_trainable,
        "base_loss": None if base is None else base.loss,
        "tuned_loss": None if tuned is None else tuned.loss,
        "tuned_loss_interval": _interval(scores.get("loss")),
        "token_accuracy": scores["token_accuracy"].value if "token_accuracy" in scores else None,
        "scores": {name: each.value for name, each in scores.items() if name not in OF_THEIR_OWN},
        "best_epoch": None if best is None else best.epoch,
        "best_held_out_loss": None if best is None else best.held_out_loss,
        "gate_met": None if evaluation.gate is None else evaluation.gate.met,
        "steps": len(history.steps),
        "seconds": history.seconds,
        "tokens_per_second": round(per_step * len(took) / sum(took), 1) if took else None,
        "restarts": max(len(history.starts) - 1, 0),
        "export_bytes": sum(
            entry.num_bytes for entry in run.export.files if not entry.name.startswith(MERGED)
        ),
        "dataset": run.dataset.digest,
        "train_data": run.dataset.inputs.get("train"),
        "held_out_data": _held_out_data(run),
    }


def _held_out_data(run: RunFound) -> str:
    """Digest of what says which conversations are held out: their files, or the share of the
    training data and how it is chosen."""
    inputs, data = run.dataset.inputs, run.spec.data
    if data.held_out is not None:
        chosen_by = None
    else:
        chosen_by = [inputs.get("train"), data.held_out_by]
    parts = [inputs.get("held_out"), chosen_by, run.dataset.facts.get("held_out_conversations")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _interval(score: Score | None) -> list[float] | None:
    if score is None or score.low is None or score.high is None:
        return None
    return [score.low, score.high]


def cautions(table: Sequence[Compared]) -> list[str]:
    """What keeps the losses from being comparable."""
    found: list[str] = []
    if len({each.facts["held_out_data"] for each in table}) > 1:
        found.append(
            "The runs have different held-out data, so their losses are of different conversations."
        )
    elif len({each.facts["train_data"] for each in table}) > 1:
        found.append("The runs were trained on different data; their held-out data is the same.")
    if len({each.facts["model"] for each in table}) > 1:
        found.append(
            "The runs have different base models; losses of different tokenizers cannot be "
            "compared."
        )
    return found


def overlay(runs: Sequence[RunFound], *, width: int, height: int) -> str:
    """Training loss by step as lines, held-out loss at the end of each epoch as dots; a colour a
    run, by CSS class."""
    training = [
        thinned([(float(each.step), each.loss) for each in run.history.steps]) for run in runs
    ]
    held_out = [
        [
            (float(each.step), each.held_out_loss)
            for each in run.history.epochs
            if each.held_out_loss is not None
        ]
        for run in runs
    ]
    losses = [loss for points in (*training, *held_out) for _, loss in points]
    marks = ticks(min(losses), max(losses), most=height // 50)
    last = max(run.history.epochs[-1].step for run in runs)
    scale = Scale(width, height, last_step=last, low=marks[0], high=marks[-1])
    parts = list(grid(scale, marks))
    for number, (lines, dots) in enumerate(zip(training, held_out, strict=True), start=1):
        parts.append(line(f"run-{number}", scale, lines))
        parts += [
            f'<circle class="run-{number}" cx="{scale.x(step)}" cy="{scale.y(loss)}" r="4.5"/>'
            for step, loss in dots
        ]
    about = f"Training and held-out loss by step of {len(runs)} runs"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{about}">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def compare_page(runs: Sequence[RunFound], table: Sequence[Compared]) -> str:
    """The page's HTML. Everything that comes from the runs is escaped."""
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {
        "duration": words.duration,
        "size": words.size,
        "parameters": words.parameters,
        "metric_name": lambda metric: NAMES.get(metric, metric),
        "metric_value": metric_value,
    }
    losses = [each.facts["tuned_loss"] for each in table]
    measured = [loss for loss in losses if loss is not None]
    if measured:
        best = losses.index(min(measured))
    else:
        best = None
    return environment.get_template("compare.html.jinja").render(
        table=table,
        best=best,
        metrics=list(dict.fromkeys(metric for each in table for metric in each.facts["scores"])),
        cautions=cautions(table),
        fields=list(table[0].asked),
        chart=Markup(overlay(runs, width=WIDE[0], height=WIDE[1])),  # noqa: S704 - numbers only
        # numbers only
        small_chart=Markup(overlay(runs, width=NARROW[0], height=NARROW[1])),  # noqa: S704
        questions=answers_by_question(runs),
    )


def answers_by_question(runs: Sequence[RunFound]) -> list[tuple[str, list[str | None]]]:
    """Questions that at least two runs were asked, with each run's tuned answer or None."""
    by_run = [{answer.question: answer.tuned for answer in run.evaluation.answers} for run in runs]
    questions = dict.fromkeys(question for answers in by_run for question in answers)
    shared = [
        question for question in questions if sum(question in answers for answers in by_run) > 1
    ]
    return [(question, [answers.get(question) for answers in by_run]) for question in shared]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.write_report.compare", description="Compare finished runs."
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the runs' folders, finished")
    parser.add_argument("--html", metavar="FILE", type=Path, help="also write the page")
    asked = parser.parse_args()
    with step_log("write_report"), TemporaryDirectory() as folder:
        check_page_file(asked.html)
        runs = [_gathered(uri, Path(folder, str(number))) for number, uri in enumerate(asked.runs)]
        table = compared(runs)
        if asked.html is not None:
            write_page(asked.html, compare_page(runs, table))
        rows = [{"run": each.label, **each.facts, "asked": each.asked} for each in table]
        print(json.dumps({"runs": rows, "cautions": cautions(table)}, ensure_ascii=False))


def check_page_file(html: Path | None) -> None:
    """Raises SpecError where no page can be written, before the runs are read."""
    if html is not None and not html.parent.is_dir():
        raise SpecError(
            f"--html: got {html}, but there is no folder {html.parent}; make it, or name another "
            "file"
        )


def write_page(html: Path, page: str) -> None:
    try:
        html.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SpecError(
            f"--html: {html} cannot be written: {error.strerror}; name another file"
        ) from None


def _gathered(uri: str, work: Path) -> RunFound:
    store, spec = open_run(uri)
    return gather(store, spec, uri=uri.rstrip("/"), work=work)


if __name__ == "__main__":
    main()
