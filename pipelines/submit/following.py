"""A run in KFP -> the same progress on the screen as of a local run, to its end.

KFP knows which task is running and how it ended; how far a training is, its launcher writes to the
store, and the checkpoints are there. Where the store cannot be read from here, that is said once
and KFP's part is shown alone.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from types import FrameType
from typing import Any

from rich.console import Console

from components.shared.documents.progress import TrainingProgress
from components.shared.errors import (
    HaganeError,
    KfpError,
    KfpMissing,
    ObjectMissing,
    Preempted,
    RunFailed,
    StoreError,
)
from components.shared.processes import RaiseFromHandler
from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.layout import CHECKPOINTS, MANIFEST, PROGRESS
from components.shared.store.storage import Store, open_store
from pipelines.finetune.compiled import CompiledPipeline
from pipelines.finetune.steps import STEPS, TASKS
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.failure_reasons import reasons
from pipelines.kfp_api.run_view import EXIT, RunView, StepView, view_of
from pipelines.screens.progress import Screen, duration
from pipelines.screens.run import print_end

FIRST_POLL_S, SLOWEST_POLL_S, SLOWER = 1.0, 20.0, 1.3
"""Seconds between two looks: short after news, longer while nothing happens."""
SAID = {
    "waiting": "waits to be started",
    "being cancelled": "is being cancelled",
    "paused": "is paused",
}
"""State of a run -> what is said of it when it comes."""
ENDED = {
    "succeeded": "finished",
    "done before": "was done before",
    "failed": "failed",
    "cancelled": "was cancelled",
}
"""State of a step that has ended -> what is said of it."""
TRAINING = "launch_training"
LEFT_A_JOB = "end_run failed, so a training job may be left"
UNREADABLE = "the store cannot be read from here, so steps made and losses are not shown"
PATIENCE_S = 600.0
"""How long a server may fail before it is no longer asked; the run goes on without."""


def step_names(pipeline: CompiledPipeline) -> dict[str, str]:
    """What KFP may call a task, its key or its display name -> the step; claim_run and end_run,
    before and after the steps, too."""
    names: dict[str, str] = {}
    for dag in [pipeline.spec["root"], *pipeline.spec["components"].values()]:
        for key, task in dag.get("dag", {}).get("tasks", {}).items():
            step = task["componentRef"]["name"].removeprefix("comp-").replace("-", "_")
            if step in TASKS:
                names |= {key: step, task["taskInfo"]["name"]: step}
    return names


def follow_run(
    kfp: KfpClient, run_id: str, store_uri: str, names: dict[str, str], console: Console
) -> None:
    """The run is over, and went well, its exit task too.

    Raises:
        RunFailed: it failed or was cancelled, with why each step failed; or its exit task failed;
            or the server is gone for good.
        Preempted: Ctrl-C or SIGTERM ended the following; the run goes on.
    """
    with _left_by_signals(kfp, run_id), Screen(console, STEPS) as screen:
        follower = _Follower(kfp, run_id, screen, names, store_uri)
        wait_s = FIRST_POLL_S
        while not (view := follower.look()).is_over:
            if follower.had_news:
                wait_s = FIRST_POLL_S
            else:
                wait_s = min(wait_s * SLOWER, SLOWEST_POLL_S)
            time.sleep(wait_s)
    if view.state == "succeeded":
        problems = []
    else:
        problems = reasons(kfp, view, store_uri)
    problems += exit_problems(kfp, view, store_uri)
    if problems:
        raise RunFailed(*problems, f"see {kfp.run_link(run_id)}")


def exit_problems(kfp: KfpClient, view: RunView, run_uri: str | None) -> list[str]:
    """What a failed exit task means; why it failed too, unless `reasons` says it: KFP calls such a
    run a success."""
    end_run = view.step(EXIT)
    if not view.is_over or end_run.state != "failed":
        return []
    if view.state == "succeeded":
        why = reasons(kfp, replace(view, steps=(end_run,)), run_uri)
    else:
        why = []
    return [*why, f"{LEFT_A_JOB}; see `hagane reap`"]


def print_finish(run_uri: str, console: Console) -> None:
    """The end screen of a finished run is on the console, or where its report is when the store
    cannot be read from here."""
    try:
        print_end(console, open_store(run_uri))
    except StoreError as error:
        console.print(
            (
                f"finished; its report is {run_uri}/report, which cannot be read from here: "
                f"{error.problems[0]}"
            ),
            soft_wrap=True,
        )


class _Follower:
    """What was seen of the run so far."""

    def __init__(
        self, kfp: KfpClient, run_id: str, screen: Screen, names: dict[str, str], store_uri: str
    ) -> None:
        self._kfp, self._run_id, self._screen, self._names = kfp, run_id, screen, names
        self._store: Store | None = None
        try:
            self._store = open_store(store_uri)
        except StoreError as error:
            screen.say(f"{UNREADABLE}: {error.problems[0]}")
        self._states: dict[str, str] = {}
        self._manifests: set[str] = set()
        self._checkpoints: set[str] = set()
        self._phase = ("", "")
        self._done: Any = None
        self._restarts = 0
        self._state = ""
        self._failing_since: float | None = None
        self.had_news = True

    def look(self) -> RunView:
        """The run as KFP has it; what is new of it was shown."""
        self.had_news = False
        view = view_of(self._run(), self._names)
        if view.state != self._state:
            self._state, self.had_news = view.state, True
            if view.state in SAID:
                self._screen.say(SAID[view.state])
        for step in view.steps:
            if step.name == TRAINING:
                self._show_training(step)
            self._show_step(step)
        return view

    def _run(self) -> Any:
        while True:
            try:
                run = self._kfp.ask(
                    "look at the run", self._kfp.runs.run_service_get_run, self._run_id
                )
                self._failing_since = None
                return run
            except KfpMissing as error:
                raise RunFailed(
                    *error.problems, "the run was deleted while it was followed"
                ) from None
            except KfpError as error:
                if not error.may_pass:
                    raise RunFailed(
                        *error.problems, f"the run goes on: {self._kfp.run_link(self._run_id)}"
                    ) from None
                now = time.monotonic()
                if self._failing_since is None:
                    self._failing_since = now
                    self._screen.say(
                        f"{error.problems[0]}; the run goes on, and is asked for again"
                    )
                if now - self._failing_since > PATIENCE_S:
                    raise RunFailed(
                        *error.problems, f"the run goes on: {self._kfp.run_link(self._run_id)}"
                    ) from None
                time.sleep(FIRST_POLL_S)

    def _show_step(self, step: StepView) -> None:
        if step.name not in STEPS or self._states.get(step.name) == step.state:
            return
        self._states[step.name] = step.state
        if step.state in ("waiting", "not run"):
            return
        self.had_news = True
        self._screen.enter(step.name)
        if step.state in ENDED:
            if step.seconds is None or step.state == "done before":
                took = ""
            else:
                took = f" after {duration(step.seconds)}"
            self._screen.say(f"{ENDED[step.state]}{took}")

    def _show_training(self, step: StepView) -> None:
        """How far the training is, until it has ended and for the last time then."""
        has_ended = self._states.get(step.name) in ENDED
        if self._store is None or has_ended or step.state not in ("running", *ENDED):
            return
        self._screen.enter(step.name)
        try:
            self._show_checkpoints(self._store)
            progress = TrainingProgress.model_validate_json(self._store.read_bytes(PROGRESS))
            if not is_of_an_earlier_try(progress, step):
                self._show_progress(progress)
        except ObjectMissing:
            return
        except (StoreError, ValueError) as error:
            self._store = None
            if isinstance(error, HaganeError):
                problems = error.problems
            else:
                problems = str(error).splitlines()
            why = problems[0]
            self._screen.say(f"{UNREADABLE}: {why}")

    def _show_checkpoints(self, store: Store) -> None:
        manifests = {
            each.key for each in store.list(f"{CHECKPOINTS}/") if each.key.endswith(f"/{MANIFEST}")
        }
        if manifests == self._manifests:
            return
        self._manifests = manifests
        for checkpoint in committed_checkpoints(store):
            if checkpoint.folder not in self._checkpoints:
                self._checkpoints.add(checkpoint.folder)
                self._screen.say(f"checkpoint of {checkpoint.title} is in the store")
                self.had_news = True

    def _show_progress(self, state: TrainingProgress) -> None:
        """What is new since the last look: a restart, another phase, more steps. The launcher
        writes it every few seconds."""
        restarts = state.restarts
        if restarts > self._restarts:
            self._say(
                f"training: the job's pods were started anew ({restarts} "
                f"{'time' if restarts == 1 else 'times'} so far)"
            )
        self._restarts = max(self._restarts, restarts)
        phase, done = (state.phase, state.detail), state.done
        if phase != self._phase and not (done and phase[0] == "running"):
            self._say(f"training: {': '.join(filter(None, phase))}")
        self._phase = phase
        if done and done != self._done:
            self._done, self.had_news = done, True
            shown = {"done", "total", "loss", "tokens_s", "left_s"}
            reported = state.model_dump(include=shown, exclude_none=True)
            self._screen.show(
                {"event": "progress", "component": "train", "unit": "steps", **reported}
            )

    def _say(self, line: str) -> None:
        self.had_news = True
        self._screen.say(line)


@contextmanager
def _left_by_signals(kfp: KfpClient, run_id: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM leave the block, and the run to itself."""
    leave = RaiseFromHandler()
    heard = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            return
        heard = True
        left = Preempted(
            "no longer followed; the run goes on, and ends by `terminate` on its page: "
            f"{kfp.run_link(run_id)}"
        )
        left.exit_code = 128 + number
        leave(left, frame)

    before = {each: signal.signal(each, hear) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        leave.finish()


def is_of_an_earlier_try(progress: TrainingProgress, step: StepView) -> bool:
    """Whether the progress was written before this try of the step began: a run that is started
    again still has it."""
    return step.started is not None and datetime.fromisoformat(progress.at) < step.started
