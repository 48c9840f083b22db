"""A run's log, from wherever it is: this machine's last `hagane run`, the pods of a training in a
cluster, steps that failed."""

from collections.abc import Iterator
from pathlib import Path

import structlog

from components.shared.documents.failures import read_failures
from components.shared.errors import SpecError
from components.shared.events import Event, event_of
from components.shared.step import work_folder
from components.shared.store.layout import LOGS
from components.shared.store.storage import Store
from pipelines.finetune.steps import TASKS

_FOR_PEOPLE = structlog.processors.LogfmtRenderer(
    key_order=["event", "component"], bool_as_flag=False
)
TRAINING = "launch_training"


def log_lines(store: Store, run_uri: str, step: str | None) -> Iterator[str]:
    """Lines of the whole run or of one step, as far as anything of them is known here.

    Raises:
        SpecError: no step has this name, or nothing is known.
    """
    if step is not None and step not in TASKS:
        raise SpecError(f"logs: found {step!r}, allowed {', '.join(TASKS)}. Fix: name one of them")
    local = work_folder(run_uri, "pipeline") / "pipeline.log"
    parts = [*_of_this_machine(local, step), *_of_pods(store, step), *_of_failures(store, step)]
    if not parts:
        raise SpecError(
            f"logs: found no log of {step or 'this run'} on this machine ({local}) or in "
            f"{store.uri}. Fix: of a run in Kubeflow Pipelines: hagane runs ID --log "
            f"{step or 'STEP'}"
        )
    yield from parts


def _of_this_machine(file: Path, step: str | None) -> list[str]:
    """What `hagane run` kept: events as people read them, other lines between two events as they
    are."""
    if not file.is_file():
        return []
    lines: list[str] = []
    current = ""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        event = event_of(line)
        if event is not None:
            current = _step_of(event)
        if step is None or current == step:
            lines.append(line if event is None else str(_FOR_PEOPLE(None, "", dict(event))))
    return lines


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
