"""A run in KFP -> cancelled, and its training job gone."""

import time
from collections.abc import Callable
from datetime import datetime

from components.shared.errors import RunFailed
from components.shared.job.training_job import IS_DELETED
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.failure_reasons import kept_failures, reasons
from pipelines.kfp_api.run_view import EXIT, RunView
from pipelines.submit.following import LEFT_A_JOB, TRAINING

POLL_S = 2.0
SAY_S = 20.0
"""How often it is said what is still waited for, where nothing changed."""
PATIENCE_S = 900.0
"""As long as a training may take to save a checkpoint, end, and the exit task to look for its
job."""


def cancel_run(
    kfp: KfpClient, look: Callable[[], RunView], run_uri: str | None, *, tell: Callable[[str], None]
) -> None:
    """The run is over, and its exit task has seen that no training job of it is left.

    A run that is over already stays as it is. `look`: the run as it is now.

    Raises:
        RunFailed: the exit task failed or did not run after a training began, so that a job may be
            left; or KFP's Retry had continued the run, which runs no exit task again, and its
            launcher does not say that the job is deleted; or the run did not end within PATIENCE_S.
    """
    view = look()
    if view.is_over:
        tell(f"run {view.name} is {view.state} already; nothing to cancel")
        return
    started = time.monotonic()
    kfp.ask(f"cancel run {view.name!r}", kfp.runs.run_service_terminate_run, view.id)
    tell(f"run {view.name} is being cancelled; its training stores a checkpoint first")
    said, said_at = "", started
    while not (view := look()).is_over:
        now = time.monotonic()
        at = ", ".join(view.at_step) or "no step"
        if now - started > PATIENCE_S:
            raise RunFailed(
                f"run {view.name!r}: still {view.state} after {PATIENCE_S:.0f} s, at {at}; see "
                f"{kfp.run_link(view.id)}"
            )
        if at != said or now - said_at > SAY_S:
            tell(
                f"waits for {at}, {now - started:.0f} s so far; gives up after "
                f"{PATIENCE_S / 60:.0f} min"
            )
            said, said_at = at, now
        time.sleep(POLL_S)
    tell(
        f"run {view.name} is {view.state} after {time.monotonic() - started:.0f} s: "
        f"{_job_is_gone(kfp, view, run_uri)}"
    )


def _job_is_gone(kfp: KfpClient, view: RunView, run_uri: str | None) -> str:
    """Why it is known that no training job is left."""
    exit_began = view.step(EXIT).started
    if view.retried_at is not None and (exit_began is None or exit_began <= view.retried_at):
        return _job_is_gone_without_exit_task(kfp, view, view.retried_at, run_uri)
    if view.step(EXIT).state == "succeeded":
        return "no training job of it is left"
    if view.step(TRAINING).started is None:
        return "it had begun no training"
    if view.step(EXIT).state == "failed":
        why = reasons(kfp, view, run_uri)
    else:
        why = []
    raise RunFailed(*why, f"{view.name}: {LEFT_A_JOB}; see `hagane reap`")


def _job_is_gone_without_exit_task(
    kfp: KfpClient, view: RunView, retried_at: datetime, run_uri: str | None
) -> str:
    """As `_job_is_gone`, where the exit task ran before KFP's Retry continued the run: what it saw
    was an earlier try.

    KFP gives whole seconds: what began in the second of the Retry counts as what would be worse.
    """
    training, end_run = view.step(TRAINING), view.step(EXIT)
    began_training = training.started is not None and training.started >= retried_at
    if not began_training and end_run.state == "succeeded":
        return "it had begun no training since KFP's Retry"
    if began_training and training.state == "succeeded":
        return "its training had finished"
    failure = kept_failures(view, run_uri).get(TRAINING)
    if failure is not None and failure.at >= retried_at:
        says = failure.text.splitlines()
    else:
        says = []
    if began_training and any(IS_DELETED in line for line in says):
        return "its launcher deleted the training job"
    raise RunFailed(
        *says,
        f"{view.name}: a training job may be left: KFP's Retry had continued the run, and Retry "
        f"does not run end_run again. Fix: hagane reap {run_uri or 'RUN'}",
    )
