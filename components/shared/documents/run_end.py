"""What was said of a run's end: `<run>/ends/<KFP's id of the run>.json`, written by the exit task.

It makes the exit task safe to run twice: who finds it has nothing to notify. And it keeps FAILED
from being final: KFP's Retry goes on with a failed run under the same id and never runs the exit
task again, so the steps that run then write here that the run goes on, and how that ended.
"""

from datetime import UTC, datetime
from typing import Literal

from components.shared.documents.failures import STEPS
from components.shared.documents.fields import FrozenModel
from components.shared.errors import ObjectMissing
from components.shared.store.layout import end_key
from components.shared.store.storage import Store

LAST_STEP = STEPS[-2]
"""Of the pipeline; after it there is the exit task alone."""
GOES_ON, FAILED, SUCCEEDED = "RUNNING", "FAILED", "SUCCEEDED"


class RunEnd(FrozenModel):
    schema_version: Literal[1] = 1
    kfp_run: str
    state: str
    """As KFP gave it to the exit task; RUNNING, FAILED or SUCCEEDED once a step ran after that."""
    title: str
    """One sentence for people."""
    notified: bool = False
    """Whether the address for notifications got it. True is written before it is sent."""
    resumed_by: str = ""
    """The first step that ran after the end was said; empty while that is the last word."""
    at: datetime


def read_end(store: Store, kfp_run: str) -> RunEnd | None:
    """What was said of the end of KFP's run; None where nothing was."""
    if not kfp_run:
        return None
    try:
        return RunEnd.model_validate_json(store.read_bytes(end_key(kfp_run)))
    except (ObjectMissing, ValueError):
        return None


def write_end(store: Store, end: RunEnd) -> None:
    store.write_bytes(end_key(end.kfp_run), end.model_dump_json(indent=1).encode() + b"\n")


def end_taken_back(store: Store, step: str, kfp_run: str) -> RunEnd | None:
    """What was said of this run's end and is no longer true, because a step of it runs again.

    It is written that the run goes on. None where the run was not ended.
    """
    end = read_end(store, kfp_run)
    if end is None:
        return None
    title = f"The run goes on with {step}. Said before: {end.title}"
    if end.resumed_by:
        if end.state == GOES_ON:
            title = end.title
        else:
            title = f"The run goes on with {step}"
    _write_again(store, end, state=GOES_ON, title=title, step=end.resumed_by or step)
    return end


def end_of_resumed_run(store: Store, ended: RunEnd, step: str, *, failed: bool) -> None:
    """How a run that went on after its end was said ended, which no exit task says.

    A step that passed and is not the last one changes nothing.
    """
    if failed:
        title = f"{step} failed after the run was continued"
        _write_again(store, ended, state=FAILED, title=title, step=ended.resumed_by or step)
    elif step == LAST_STEP:
        title = "The run was continued and finished"
        _write_again(store, ended, state=SUCCEEDED, title=title, step=ended.resumed_by or step)


def was_resumed(store: Store, kfp_run: str) -> bool:
    """Whether KFP's run goes on after its exit task: nobody will delete a job that this part
    leaves."""
    end = read_end(store, kfp_run)
    return end is not None and end.resumed_by != ""


def _write_again(store: Store, end: RunEnd, *, state: str, title: str, step: str) -> None:
    changed = {"state": state, "title": title, "resumed_by": step, "at": datetime.now(UTC)}
    write_end(store, end.model_copy(update=changed))
