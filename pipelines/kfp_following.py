"""A run in KFP -> the same progress on the screen as of a local run, to its end.

KFP knows which task is at work and how it ended; how far a training is, its launcher writes to the store, and the checkpoints are there.
Where the store cannot be read from here, that is said once and KFP's part is shown alone.
"""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

from rich.console import Console

from components.shared.checkpoints import committed_checkpoints
from components.shared.errors import HaganeError, KfpError, KfpMissing, ObjectMissing, Preempted, RunFailed, StoreError
from components.shared.layout import CHECKPOINTS, MANIFEST, PROGRESS
from components.shared.step import work_folder
from components.shared.storage import Store, open_store
from pipelines.compiled import CompiledPipeline
from pipelines.finetune import STEPS, TASKS
from pipelines.following import Screen, duration
from pipelines.kfp_client import FINISHED, KfpClient
from pipelines.screens import print_end

FIRST_POLL_S, SLOWEST_POLL_S, SLOWER = 1.0, 20.0, 1.3
"""Seconds between two looks: short after news, longer while nothing happens."""
UNREADABLE = "the store cannot be read from here, so steps made and losses are not shown"
PATIENCE_S = 600.0
"""How long a server may fail before it is no longer asked; the run goes on without."""


def step_names(pipeline: CompiledPipeline) -> dict[str, str]:
    """What KFP may call a task, its key or its display name -> the step; claim_run and end_run, before and after the steps, too."""
    names: dict[str, str] = {}
    for dag in [pipeline.spec["root"], *pipeline.spec["components"].values()]:
        for key, task in dag.get("dag", {}).get("tasks", {}).items():
            step = task["componentRef"]["name"].removeprefix("comp-").replace("-", "_")
            if step in TASKS:
                names |= {key: step, task["taskInfo"]["name"]: step}
    return names


def follow_run(kfp: KfpClient, run_id: str, store_uri: str, names: dict[str, str], console: Console) -> None:
    """The run is over, and went well.

    Raises:
        RunFailed: it failed or was terminated, with what KFP says of the failed steps; or the server is gone for good.
        Preempted: Ctrl-C or SIGTERM ended the following; the run goes on.
    """
    with _left_by_signals(kfp, run_id), Screen(console, STEPS) as screen:
        follower = _Follower(kfp, run_id, screen, names, store_uri)
        wait_s = FIRST_POLL_S
        while (run := follower.look()).state not in FINISHED:
            wait_s = FIRST_POLL_S if follower.had_news else min(wait_s * SLOWER, SLOWEST_POLL_S)
            time.sleep(wait_s)
    if run.state not in ("SUCCEEDED", "SKIPPED"):
        raise RunFailed(*failures(run, names), f"see {kfp.run_link(run_id)}")


def print_finish(run_uri: str, console: Console) -> None:
    """The end screen of a finished run is on the console, or where its report is when the store cannot be read from here."""
    try:
        print_end(console, open_store(run_uri), work_folder(run_uri, "report"))
    except StoreError as error:
        console.print(f"finished; its report is {run_uri}/report, which cannot be read from here: {error.problems[0]}", soft_wrap=True)


class _Follower:
    """What was seen of the run so far."""

    def __init__(self, kfp: KfpClient, run_id: str, screen: Screen, names: dict[str, str], store_uri: str) -> None:
        self._kfp, self._run_id, self._screen, self._names = kfp, run_id, screen, names
        self._store: Store | None = None
        try:
            self._store = open_store(store_uri)
        except StoreError as error:
            screen.say(f"{UNREADABLE}: {error.problems[0]}")
        self._states: dict[str, str] = {}
        self._manifests: set[str] = set()
        self._checkpoints: set[str] = set()
        self._progress: Any = None
        self._state = ""
        self._failing_since: float | None = None
        self.had_news = True

    def look(self) -> Any:
        """The run as KFP has it; what is new of it was shown."""
        self.had_news = False
        run = self._run()
        if run.state != self._state:
            self._state, self.had_news = run.state, True
            if run.state in ("PENDING", "CANCELING", "PAUSED"):
                self._screen.say({"PENDING": "waits to be started", "CANCELING": "is being terminated", "PAUSED": "is paused"}[run.state])
        for task in sorted(tasks_of(run), key=lambda each: str(each.create_time)):
            self._show_task(task)
        if self._store is not None:
            self._show_training(self._store)
        return run

    def _run(self) -> Any:
        while True:
            try:
                run = self._kfp.ask("look at the run", self._kfp.runs.run_service_get_run, self._run_id)
                self._failing_since = None
                return run
            except KfpMissing as error:
                raise RunFailed(*error.problems, "the run was deleted while it was followed") from None
            except KfpError as error:
                if not error.may_pass:
                    raise RunFailed(*error.problems, f"the run goes on: {self._kfp.run_link(self._run_id)}") from None
                now = time.monotonic()
                if self._failing_since is None:
                    self._failing_since = now
                    self._screen.say(f"{error.problems[0]}; the run goes on, and is asked for again")
                if now - self._failing_since > PATIENCE_S:
                    raise RunFailed(*error.problems, f"the run goes on: {self._kfp.run_link(self._run_id)}") from None
                time.sleep(FIRST_POLL_S)

    def _show_task(self, task: Any) -> None:
        step = self._names.get(task.display_name)
        if step not in STEPS or self._states.get(step) == task.state:
            return
        self._states[step], self.had_news = task.state, True
        if task.state != "PENDING":
            self._screen.enter(step)
        if task.state in ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"):
            took = f" after {duration(_seconds(task))}" if task.end_time and task.start_time else ""
            words = {"SUCCEEDED": "finished", "SKIPPED": "was done before", "FAILED": "failed", "CANCELED": "was terminated"}
            self._screen.say(f"{words[task.state]}{took}")

    def _show_training(self, store: Store) -> None:
        if self._states.get("launch_training") not in ("RUNNING", "SUCCEEDED"):
            return
        try:
            self._show_checkpoints(store)
            self._show_progress(json.loads(store.read_bytes(PROGRESS)))
        except ObjectMissing:
            return
        except (StoreError, ValueError) as error:
            self._store = None
            why = error.problems[0] if isinstance(error, HaganeError) else str(error)
            self._screen.say(f"{UNREADABLE}: {why}")

    def _show_checkpoints(self, store: Store) -> None:
        manifests = {each.key for each in store.list(f"{CHECKPOINTS}/") if each.key.endswith(f"/{MANIFEST}")}
        if manifests == self._manifests:
            return
        self._manifests = manifests
        for checkpoint in committed_checkpoints(store):
            if checkpoint.folder not in self._checkpoints:
                self._checkpoints.add(checkpoint.folder)
                self._screen.say(f"checkpoint of {checkpoint.told} is in the store")
                self.had_news = True

    def _show_progress(self, state: dict[str, Any]) -> None:
        if state == self._progress:
            return
        self._progress, self.had_news = state, True
        if state.get("done"):
            told = {key: state[key] for key in ("done", "total", "loss", "tokens_s", "left_s") if state.get(key) is not None}
            self._screen.show({"event": "progress", "component": "train", "unit": "steps", **told})
        else:
            self._screen.say(f"training: {state['phase']}" + (f": {state['detail']}" if state["detail"] else ""))


def tasks_of(run: Any) -> list[Any]:
    return list((run.run_details.task_details if run.run_details else None) or ())


def failures(run: Any, names: dict[str, str]) -> list[str]:
    """A line for each failed step, or for the run where KFP names none."""
    if run.state == "CANCELED":
        return [f"run {run.display_name!r} was terminated"]
    failed = [task for task in tasks_of(run) if task.state == "FAILED" and task.display_name in names]
    lines = [f"{names[task.display_name]}: {_words(task.error)}" for task in failed]
    return lines or [f"run {run.display_name!r}: {_words(run.error)}"]


def _words(error: Any) -> str:
    return " ".join(error.message.split()) if error is not None and error.message else "failed; its log says why"


def _seconds(task: Any) -> float:
    end, start = task.end_time, task.start_time
    return (end - start).total_seconds() if isinstance(end, datetime) and isinstance(start, datetime) else 0.0


@contextmanager
def _left_by_signals(kfp: KfpClient, run_id: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM leave the block, and the run to itself."""

    def leave(number: int, _: FrameType | None) -> None:
        left = Preempted(f"no longer followed; the run goes on, and ends by `terminate` on its page: {kfp.run_link(run_id)}")
        left.exit_code = 128 + number
        raise left

    before = {each: signal.signal(each, leave) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
