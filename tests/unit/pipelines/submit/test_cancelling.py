"""Cancelling a run waits until its exit task has seen that no training job is left."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.shared.documents.failures import STEPS, failure_of, write_failure
from components.shared.errors import Preempted, RunFailed
from components.shared.store.storage import LocalStore
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.connection import Connection
from pipelines.kfp_api.run_view import RunView, view_of
from pipelines.submit import cancelling
from pipelines.submit.cancelling import cancel_run
from tests.support.kfp import KfpServer, kfp_server
from tests.support.kfp.runs import add_run

NAMES = {step.replace("_", "-"): step for step in STEPS}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.setattr(cancelling, "POLL_S", 0.01)
    with kfp_server() as running:
        yield running


class Training:
    """A run that is training, in a cluster that takes a while to end it."""

    def __init__(self, server: KfpServer) -> None:
        self.server = server
        self.run = add_run(server, {"display_name": "long", "pipeline_spec": {"root": {}}})["run_id"]
        self.jobs = {"long"}
        self.told: list[str] = []
        self.kfp = KfpClient(Connection(endpoint=server.endpoint, namespace=None, token=None, ca_file=None, ui=server.endpoint))
        server.advance(self.run, "RUNNING", steps={"claim_run": "SUCCEEDED", "launch_training": "RUNNING"})

    def look(self) -> RunView:
        return view_of(self.kfp.ask("look", self.kfp.runs.run_service_get_run, self.run), NAMES)

    def cancel(self, run_uri: str | None = None) -> None:
        cancel_run(self.kfp, self.look, run_uri, tell=self.told.append)

    def continue_after_failure(self, *, at: str) -> None:
        """The run fails at this step, its exit task sees that no job is left, and KFP's Retry continues it with the step."""
        steps: Any = {"launch_training": "FAILED" if at == "launch_training" else "SUCCEEDED"}
        self.server.advance(self.run, "FAILED", steps=steps | {at: "FAILED", "end_run": "SUCCEEDED"})
        time.sleep(1.1)  # KFP gives whole seconds
        self.kfp.ask("retry", self.kfp.runs.run_service_retry_run, self.run)
        again: Any = {at: "RUNNING"}
        self.server.advance(self.run, "RUNNING", steps=again)


def test_cancelled_twenty_times_no_job_is_left_when_the_command_returns(server: KfpServer) -> None:
    def end(training: Training) -> None:
        time.sleep(0.05)
        training.jobs.clear()
        server.advance(training.run, "FAILED")

    for _ in range(20):
        training = Training(server)
        server.on_terminate = lambda _, training=training: threading.Thread(target=end, args=(training,)).start()
        training.cancel()
        assert training.jobs == set()
        assert training.look().state == "cancelled"
        assert training.told[-1].endswith("s: no training job of it is left")
    assert len(server.called(":terminate")) == 20


def test_a_job_that_may_be_left_is_an_error(server: KfpServer) -> None:
    training = Training(server)
    server.on_terminate = lambda run: server.advance(run, "FAILED", steps={"end_run": "FAILED"})
    server.print_log(training.run, "end_run", "cluster: no answer\n")
    with pytest.raises(RunFailed) as error:
        training.cancel()
    assert error.value.problems[1:] == (
        "end_run: cluster: no answer",
        "long: end_run failed, so a training job may be left; see `hagane reap`",
    )
    assert error.value.exit_code == 1


def test_of_a_run_that_retry_continued_the_first_trys_exit_task_says_nothing(server: KfpServer) -> None:
    training = Training(server)
    training.continue_after_failure(at="launch_training")
    server.on_terminate = lambda run: server.advance(run, "FAILED", steps={"launch_training": "FAILED"})
    with pytest.raises(RunFailed) as error:
        training.cancel("s3://b/runs/long")
    assert error.value.problems == (
        "long: a training job may be left: KFP's Retry had continued the run, and Retry does not run end_run again. "
        "Fix: hagane reap s3://b/runs/long",
    )


@pytest.mark.parametrize(
    ("said", "kfp_run", "is_gone"),
    [
        ("training: stopped; job long is deleted", "", True),
        ("training: stopped; job long may still be at work (403)", "", False),
        ("training: stopped; job long is deleted", "another", False),
    ],
)
def test_of_a_run_that_retry_continued_the_launcher_says_whether_its_job_is_deleted(
    said: str, kfp_run: str, is_gone: bool, server: KfpServer, tmp_path: Path
) -> None:
    training = Training(server)
    training.continue_after_failure(at="launch_training")

    def end(run: str) -> None:
        failure = failure_of("launch_training", Preempted(said), [], at=datetime.now(UTC), kfp_run=kfp_run or run)
        write_failure(LocalStore(tmp_path), failure)
        server.advance(run, "FAILED", steps={"launch_training": "FAILED"})

    server.on_terminate = end
    if is_gone:
        training.cancel(str(tmp_path))
        assert training.told[-1].endswith("s: its launcher deleted the training job")
        return
    with pytest.raises(RunFailed, match="a training job may be left"):
        training.cancel(str(tmp_path))


def test_a_retry_that_came_to_no_training_leaves_no_job(server: KfpServer) -> None:
    training = Training(server)
    training.continue_after_failure(at="evaluate")
    server.on_terminate = lambda run: server.advance(run, "FAILED", steps={"evaluate": "FAILED"})
    training.cancel()
    assert training.told[-1].endswith("s: it had begun no training since KFP's Retry")


def test_a_run_that_is_over_stays_as_it_is(server: KfpServer) -> None:
    training = Training(server)
    server.advance(training.run, "SUCCEEDED")
    training.cancel()
    assert training.told == ["run long is succeeded already; nothing to cancel"]
    assert not server.called(":terminate")


def test_a_run_that_does_not_end_is_given_up(server: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "PATIENCE_S", 0.05)
    training = Training(server)
    with pytest.raises(RunFailed, match="still being cancelled after 0 s, at launch_training"):
        training.cancel()


def test_while_it_waits_it_says_for_which_step_and_how_long(server: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "SAY_S", 0.1)
    training = Training(server)

    def end(run: str) -> None:
        time.sleep(0.3)
        server.advance(run, "RUNNING", steps={"launch_training": "FAILED", "end_run": "RUNNING"})
        time.sleep(0.3)
        server.advance(run, "FAILED", steps={"end_run": "SUCCEEDED"})

    server.on_terminate = lambda run: threading.Thread(target=end, args=(run,)).start()
    training.cancel()
    waits = [line for line in training.told if line.startswith("waits for ")]
    assert waits[0] == "waits for launch_training, 0 s so far; gives up after 15 min"
    assert {line.split()[2] for line in waits} == {"launch_training,", "end_run,"}
    assert len(waits) > 2
