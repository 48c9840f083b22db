"""A run as KFP's server gives it -> where the run and each of its steps stand.

A server of 2.17 lists Argo's nodes, about six for each step, in no order: the step's own, named as
its task, with a driver (`claim-run-driver`), an `executor` and their tries (`claim-run(0)`). A time
that is not there is a zero one, of 1970 or of the year 1. A run that was just created has no state;
a node that was left out has none either. A run that was terminated ends as FAILED, and only its
history has CANCELING. A step that was taken from KFP's cache is SUCCEEDED, its executor SKIPPED.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

from components.shared.documents.failures import STEPS

RunState = Literal[
    "waiting", "running", "paused", "being cancelled", "succeeded", "failed", "cancelled"
]
StepState = Literal[
    "waiting", "starting", "running", "succeeded", "done before", "failed", "cancelled", "not run"
]
FIRST_YEAR = 2000
"""KFP is younger than any time before this year: it stands for none."""
DRIVER = "-driver"
EXIT = "end_run"
"""The task that runs however the others ended."""
RUN_STATES: dict[str | None, RunState] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "PAUSED": "paused",
    "CANCELING": "being cancelled",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "cancelled",
}
"""The server's word -> ours; a run that has none, or another, is waiting."""
FINISHED: tuple[RunState, ...] = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class StepView:
    """One step of the pipeline, as far as the run has come to it."""

    name: str
    state: StepState
    started: datetime | None = None
    finished: datetime | None = None
    log_nodes: tuple[str, ...] = ()
    """Nodes of Argo whose log may be the step's, the likeliest first."""

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs, and for what was not run."""
        if self.started is None or self.finished is None:
            return None
        return (self.finished - self.started).total_seconds()


@dataclass(frozen=True)
class RunView:
    """A run, its steps in the pipeline's order."""

    id: str
    name: str
    state: RunState
    created: datetime | None
    finished: datetime | None
    steps: tuple[StepView, ...]
    cancelled_at: datetime | None = None
    """When somebody terminated it, where that is how it ended or is ending."""
    retried_at: datetime | None = None
    """When KFP's Retry continued it after a failure. The exit task is not run again then."""
    failed_drivers: tuple[StepView, ...] = ()
    """Pods of KFP's own that failed outside any step, named as Argo does."""

    @property
    def is_over(self) -> bool:
        """Whether nothing runs any more. A failed run may still be continued by KFP's Retry."""
        return self.state in FINISHED

    @property
    def at_step(self) -> tuple[str, ...]:
        """Steps that are running, or whose pod KFP is about to start."""
        return tuple(step.name for step in self.steps if step.state in ("starting", "running"))

    @property
    def failed_steps(self) -> tuple[StepView, ...]:
        """What failed: steps, or where none did, what KFP runs around them."""
        return tuple(step for step in self.steps if step.state == "failed") or self.failed_drivers

    def step(self, name: str) -> StepView:
        return next(step for step in self.steps if step.name == name)


def view_of(run: Any, names: Mapping[str, str]) -> RunView:
    """The run. `names`: what KFP may call a step's task -> the step."""
    history = [
        (entry.state, moment_of(entry.update_time))
        for entry in run.state_history or ()
        if entry.state
    ]
    state = RUN_STATES.get(run.state, "waiting")
    cancelled_at = _cancelled_at(history, state)
    if state == "failed" and cancelled_at is not None:
        state = "cancelled"
    tasks = list((run.run_details.task_details if run.run_details else None) or ())
    is_over = state in FINISHED
    steps = _steps(tasks, names, is_over=is_over, cancelled_at=cancelled_at)
    return RunView(
        id=run.run_id,
        name=run.display_name,
        state=state,
        created=moment_of(run.created_at),
        finished=moment_of(run.finished_at) if is_over else None,
        steps=steps,
        cancelled_at=cancelled_at,
        retried_at=_retried_at(history),
        failed_drivers=_failed_drivers(tasks) if state == "failed" else (),
    )


def moment_of(value: Any) -> datetime | None:
    """The time; None for one that stands for none."""
    if not isinstance(value, datetime) or value.year < FIRST_YEAR:
        return None
    return value


def local_time(moment: datetime | None) -> str:
    """To the minute, in the time zone of whoever reads it; `-` for none."""
    if moment is None:
        return "-"
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _cancelled_at(history: list[tuple[str, datetime | None]], state: RunState) -> datetime | None:
    """When the run was terminated, if that is why it ends, and not an earlier try."""
    if state not in ("failed", "cancelled", "being cancelled"):
        return None
    words = [word for word, _ in history]
    if "CANCELING" in words:
        before = words.index("CANCELING")
    else:
        before = None
    if words[-1:] == ["CANCELING"]:
        last = history[-1:]
    else:
        last = history[-2:-1]
    if before is None or not last or last[0][0] != "CANCELING":
        return None
    return last[0][1]


def _retried_at(history: list[tuple[str, datetime | None]]) -> datetime | None:
    after = [
        moment for (before, _), (_, moment) in pairwise(history) if before in ("FAILED", "CANCELED")
    ]
    if after:
        return after[-1]
    return None


def _steps(
    tasks: list[Any], names: Mapping[str, str], *, is_over: bool, cancelled_at: datetime | None
) -> tuple[StepView, ...]:
    nodes: dict[str, Any] = {}
    drivers: dict[str, Any] = {}
    for task in tasks:
        name = task.display_name or ""
        if name in names:
            nodes[names[name]] = task
        elif name.removesuffix(DRIVER) in names:
            drivers[names[name.removesuffix(DRIVER)]] = task
    executors = [task for task in tasks if task.display_name == "executor"]
    views = []
    for step in STEPS:
        node, driver = nodes.get(step), drivers.get(step)
        if node is None:
            view = _of_driver(step, driver, is_over=is_over)
        else:
            view = _of_node(step, node, executors, is_over=is_over)
        views.append(_if_cancelled(view, cancelled_at))
    return tuple(views)


def _of_driver(step: str, driver: Any, *, is_over: bool) -> StepView:
    """A step that has no pod yet, by the pod that KFP runs before it."""
    if driver is None or driver.state is None:
        return StepView(step, "not run" if is_over else "waiting")
    started = moment_of(driver.start_time)
    if driver.state in ("FAILED", "CANCELED"):
        return StepView(step, "failed", started, moment_of(driver.end_time), _children(driver))
    return StepView(step, "not run" if is_over else "starting", started)


def _of_node(step: str, node: Any, executors: list[Any], *, is_over: bool) -> StepView:
    started, finished = moment_of(node.start_time), moment_of(node.end_time)
    own = [each for each in executors if _is_within(moment_of(each.start_time), started, finished)]
    log_nodes = (*(child for each in own for child in reversed(_children(each))), *_children(node))
    match node.state:
        case None:
            return StepView(step, "not run" if is_over else "waiting")
        case "SUCCEEDED" | "SKIPPED":
            is_cached = node.state == "SKIPPED" or any(each.state == "SKIPPED" for each in own)
            return StepView(
                step, "done before" if is_cached else "succeeded", started, finished, log_nodes
            )
        case "FAILED" | "CANCELED":
            return StepView(step, "failed", started, finished, log_nodes)
        case "PENDING":
            return StepView(step, "starting", started, None, log_nodes)
        case _:
            return StepView(step, "running", started, None, log_nodes)


def _if_cancelled(view: StepView, cancelled_at: datetime | None) -> StepView:
    """A step that failed after the run was terminated did so for that reason; the exit task begins
    only then."""
    if (
        view.name == EXIT
        or view.state != "failed"
        or cancelled_at is None
        or view.finished is None
        or view.finished < cancelled_at
    ):
        return view
    return StepView(view.name, "cancelled", view.started, view.finished, view.log_nodes)


def _failed_drivers(tasks: list[Any]) -> tuple[StepView, ...]:
    failed = [
        task
        for task in tasks
        if task.state == "FAILED" and (task.display_name or "").endswith(DRIVER)
    ]
    return tuple(
        StepView(
            task.display_name,
            "failed",
            moment_of(task.start_time),
            moment_of(task.end_time),
            _children(task),
        )
        for task in failed
    )


def _children(task: Any) -> tuple[str, ...]:
    return tuple(child.pod_name for child in task.child_tasks or () if child.pod_name)


def _is_within(moment: datetime | None, start: datetime | None, end: datetime | None) -> bool:
    if moment is None or start is None:
        return False
    return start <= moment and (end is None or moment <= end)
