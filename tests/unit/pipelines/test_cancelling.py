"""Cancelling a run waits until its exit task has seen that no training job is left."""

import threading
import time
from collections.abc import Iterator

import pytest

from components.shared.errors import RunFailed
from components.shared.failures import STEPS
from pipelines import cancelling
from pipelines.cancelling import cancel_run
from pipelines.kfp_client import KfpClient
from pipelines.kfp_connection import Connection
from pipelines.run_view import RunView, view_of
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

    def cancel(self) -> None:
        cancel_run(self.kfp, self.look, None, tell=self.told.append)


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
