"""Why a step of a run failed, kept in the run: `<run>/failures/<step>.json`.

A step writes it when it fails and deletes its own when it succeeds. So what is there is why the
run is not finished, also after a rerun or a Retry of KFP. A pod that was killed writes none.
"""

import os
import re
import traceback
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from components.shared import printable
from components.shared.documents.fields import FrozenModel
from components.shared.errors import HaganeError
from components.shared.store.layout import FAILURES, failure_key
from components.shared.store.storage import Store

STEPS = (
    "claim_run",
    "prepare_dataset",
    "render_config",
    "launch_training",
    "export_adapter",
    "evaluate",
    "write_report",
    "end_run",
)
"""In the pipeline's order, as KFP's tasks are named."""
NUM_LOG_LINES = 40
MAX_LINE = 2000
_SECRET_VARIABLE = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|NOTIFY_URL", re.IGNORECASE)
_SHORTEST_SECRET = 6
"""Characters; a shorter value would blank out ordinary words."""


class StepFailure(FrozenModel):
    """What a person needs to see first. It holds no secret of the step's environment."""

    schema_version: Literal[1] = 1
    step: str
    """One of STEPS."""
    message: str
    """What happened, a line for each problem."""
    hint: str = ""
    """How to fix it; empty where the message says it, or nobody knows."""
    log_tail: tuple[str, ...] = ()
    """The last lines of the step's log, oldest first."""
    at: datetime
    """When, in UTC."""
    kfp_run: str = ""
    """KFP's id of the run whose step it was; empty outside KFP."""

    @property
    def text(self) -> str:
        """What every place shows of it: a line for each problem, after the step's name."""
        return "\n".join(f"{self.step}: {problem}" for problem in self.message.splitlines())


def failure_of(
    step: str, error: BaseException, log_tail: Iterable[str], *, at: datetime, kfp_run: str = ""
) -> StepFailure:
    """The failure that an error is, without secrets. A crash has its traceback in the tail."""
    lines = list(log_tail)
    if isinstance(error, HaganeError):
        message, hint = "\n".join(error.problems), _fix_of(error.problems)
    else:
        message = f"crashed: {type(error).__name__}: {error}".rstrip(": ")
        hint = "read the step's log; if no setting explains it, this is a fault of hagane"
        lines += "".join(traceback.format_exception(error)).splitlines()
    tail = tuple(without_secrets_of_environment(line)[:MAX_LINE] for line in lines[-NUM_LOG_LINES:])
    return StepFailure(
        step=step,
        message=without_secrets_of_environment(message)[:MAX_LINE],
        hint=hint,
        log_tail=tail,
        at=at,
        kfp_run=kfp_run,
    )


def write_failure(store: Store, failure: StepFailure) -> None:
    """The run's folder says why the step failed; an older failure of the step is replaced."""
    content = failure.model_dump_json(indent=1).encode() + b"\n"
    store.write_bytes(failure_key(failure.step), content)


def withdraw_failure(store: Store, step: str) -> None:
    """The step succeeded: the run has no failure of it."""
    store.delete(failure_key(step))


def read_failures(store: Store, kfp_run: str | None = None) -> tuple[StepFailure, ...]:
    """The failures of a run's folder, in the pipeline's order. One that cannot be read is left out.

    With `kfp_run`, those of that run of KFP alone: another may have begun under the same name.

    Raises:
        StoreError: the store cannot be used.
    """
    keys = [stored.key for stored in store.list(f"{FAILURES}/")]
    read = [_read(store.read_bytes(key)) for key in keys]
    known = [failure for failure in read if failure is not None]
    if kfp_run is not None:
        known = [failure for failure in known if failure.kfp_run == kfp_run]
    return tuple(sorted(known, key=_place))


def without_secrets_of_environment(text: str) -> str:
    """The text without keys in addresses and without values of secret variables."""
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return printable.without_secrets(text)


def _fix_of(problems: Iterable[str]) -> str:
    """What the first problem that proposes something proposes: after `Fix: ` or `; `."""
    for problem in problems:
        for mark in ("Fix: ", "; "):
            _, found, fix = problem.partition(mark)
            if found:
                return without_secrets_of_environment(fix)
    return ""


def _read(content: bytes) -> StepFailure | None:
    try:
        return StepFailure.model_validate_json(content)
    except ValueError:
        return None


def _place(failure: StepFailure) -> tuple[int, str]:
    known = failure.step in STEPS
    return (STEPS.index(failure.step) if known else len(STEPS), failure.step)
