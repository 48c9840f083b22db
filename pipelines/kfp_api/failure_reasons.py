"""Why a run in KFP failed, in the words of the step that did.

A server of KFP 2.17 says of no task why it failed. The step's own document in the run's folder does
(components/shared/documents/failures.py); where the step could not write it, or the store cannot be
read from here, the step's log that the server keeps.
"""

from components.shared.documents.failures import StepFailure, read_failures
from components.shared.errors import HaganeError, KfpError, StoreError
from components.shared.store.storage import open_store
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.run_view import RunView, StepView, local_time
from pipelines.kfp_api.step_log import problems_in, read_step_log


def reasons(kfp: KfpClient, view: RunView, run_uri: str | None) -> list[str]:
    """A line or more for each step that failed, or for the run where none did. `run_uri`: its
    folder, if it is known."""
    kept, unread = _read_kept(view, run_uri)
    cancelled = f"run {view.name!r} was cancelled at {local_time(view.cancelled_at)}"
    if view.state == "cancelled":
        lines = [cancelled]
    else:
        lines = []
    for step in view.failed_steps:
        failure = kept.get(step.name)
        lines += failure.text.splitlines() if failure else _from_log(kfp, view, step, unread)
    return lines or [f"run {view.name!r} failed, and KFP names no step: see its page"]


def kept_failures(view: RunView, run_uri: str | None) -> dict[str, StepFailure]:
    """Step -> its document, where it is of this run of KFP."""
    failures, _ = _read_kept(view, run_uri)
    return failures


def _read_kept(view: RunView, run_uri: str | None) -> tuple[dict[str, StepFailure], str]:
    """As `kept_failures`, and why the run's folder cannot be read, as the end of a sentence; empty
    where it can."""
    if run_uri is None:
        return {}, ""
    try:
        failures = read_failures(open_store(run_uri))
    except StoreError as error:
        return (
            {},
            f", and its own words in {run_uri} cannot be read from here ({error.problems[0]})",
        )
    return {each.step: each for each in failures if each.kfp_run in ("", view.id)}, ""


def _from_log(kfp: KfpClient, view: RunView, step: StepView, unread: str) -> list[str]:
    try:
        log = read_step_log(kfp, view.id, step)
    except KfpError:
        log = None
    if log:
        found = problems_in(log)
    else:
        found = []
    # As every error of hagane: without keys in addresses.
    return _lines(step.name, list(HaganeError(*found).problems)) or [
        f"{step.name}: failed, and KFP has no log of it{unread}"
    ]


def _lines(step: str, problems: list[str]) -> list[str]:
    return [f"{step}: {problem}" for problem in problems]
