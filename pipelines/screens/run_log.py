"""A run's log, from wherever it is: this machine's last `hagane run`, the pods of a training in a
cluster, steps that failed."""

from collections.abc import Iterator
from pathlib import Path

import structlog

from components.shared.documents.failures import read_failures
from components.shared.errors import SpecError
from components.shared.events import Event, event_of
from components.shared.printable import without_escapes
from components.shared.step import work_folder
from components.shared.store.layout import LOGS
from components.shared.store.storage import Store
from pipelines.finetune.steps import TASKS
from pipelines.screens.step_lines import step_lines

_FOR_PEOPLE = structlog.processors.LogfmtRenderer(
    key_order=["event", "component"], bool_as_flag=False
)
TRAINING = "launch_training"


def log_lines(
    store: Store, run_uri: str, step: str | None, *, everything: bool = False
) -> Iterator[str]:
    """Lines of the whole run or of one step, as far as anything of them is known here, without
    colours. `everything`: of the whole run also what KFP said, as it was kept.

    Raises:
        SpecError: no step has this name, or nothing is known.
    """
    if step is not None and step not in TASKS:
        raise SpecError(f"logs: found {step!r}, allowed {', '.join(TASKS)}. Fix: name one of them")
    local = work_folder(run_uri, "pipeline") / "pipeline.log"
    if everything and step is not None:
        raise SpecError("logs: --all is of the whole run. Fix: leave out --all or the step")
    if everything:
        here = _as_kept(local)
    else:
        here = _of_this_machine(local, step)
    parts = [*here, *_of_pods(store, step), *_of_failures(store, step)]
    if not parts:
        raise SpecError(
            f"logs: found no log of {step or 'this run'} on this machine ({local}) or in "
            f"{store.uri}. Fix: of a run in Kubeflow Pipelines: hagane runs ID --log "
            f"{step or 'STEP'}"
        )
    yield from map(without_escapes, parts)


def _of_this_machine(file: Path, step: str | None) -> list[str]:
    """What the steps of `hagane run` printed: events as people read them, other lines as they
    are."""
    if not file.is_file():
        return []
    kept = file.read_text(encoding="utf-8", errors="replace").splitlines()
    lines: list[str] = []
    current = ""
    for task, line in step_lines(kept):
        event = event_of(line)
        if task:
            current = task
        elif event is not None:
            current = _step_of(event)
        if step is None or current == step:
            lines.append(line if event is None else str(_FOR_PEOPLE(None, "", dict(event))))
    return lines


def _as_kept(file: Path) -> list[str]:
    """Every line of it, KFP's own too."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    return without_escapes(text).splitlines()


def _step_of(event: Event) -> str:
    if event["component"] == "train":
        return TRAINING
    return str(event["component"])


def _of_pods(store: Store, step: str | None) -> list[str]:
    if step not in (None, TRAINING):
        return []
    lines: list[str] = []
    for stored in store.list(f"{LOGS}/"):
        text = store.read_bytes(stored.key).decode("utf-8", "replace")
        lines += [f"==> {stored.key} <==", *text.splitlines()]
    return lines


def _of_failures(store: Store, step: str | None) -> list[str]:
    lines: list[str] = []
    for failure in read_failures(store):
        if step in (None, failure.step):
            lines += [
                f"==> why {failure.step} failed, {failure.at:%Y-%m-%d %H:%M} UTC <==",
                *failure.text.splitlines(),
                *failure.log_tail,
            ]
    return lines
