"""Why a step failed, out of what its pod printed; and logs that the server has, has not, or is still given."""

from collections.abc import Iterator

import pytest

from components.shared.errors import HaganeError, KfpError, KfpUnreachable
from components.shared.log import set_up_log
from pipelines.kfp_api import step_log
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.connection import Connection
from pipelines.kfp_api.run_view import RunView, StepView
from pipelines.kfp_api.step_log import follow_step_log, problems_in, read_step_log
from tests.support.kfp import KfpServer, kfp_server

PROBLEMS = ['override_epochs=-1: training.epochs: got -1, must be "1"', "it's in 'a\\b' = c", "鋼 two\nlines"]


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with kfp_server() as running:
        yield running


def client(server: KfpServer) -> KfpClient:
    return KfpClient(Connection(endpoint=server.endpoint, namespace=None, token=None, ca_file=None, ui=""))


@pytest.mark.parametrize("form", ["json", "text"])
def test_problems_are_read_as_a_step_writes_them(form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HAGANE_LOG", form)
    log = set_up_log("claim_run")
    log.error("failed", exit_code=2, problems=["of an earlier try"])
    log.error("failed", exit_code=2, problems=PROBLEMS)
    printed = capsys.readouterr().out
    assert problems_in(f"[KFP Executor] starts\n{printed}Traceback\nSystemExit: 2\n") == PROBLEMS


def test_a_crash_is_told_by_its_last_line_and_a_silent_pod_by_none() -> None:
    assert problems_in("event=begun component=train\nTraceback (most recent call last):\nKeyError: 'rows'\n\n") == ["KeyError: 'rows'"]
    assert problems_in("\n \n") == []


def test_a_log_is_taken_from_the_first_node_that_has_one(server: KfpServer) -> None:
    step = StepView("train", "failed", log_nodes=("none", "pod", "other"))
    assert read_step_log(client(server), "run", step) is None
    server.logs = {("run", "pod"): "{} of the pod\n", ("run", "other"): "another\n"}
    assert read_step_log(client(server), "run", step) == "{} of the pod\n"
    server.fail("nodes/none", 500)  # as a later server says of a node that it does not know
    assert read_step_log(client(server), "run", step) == "{} of the pod\n"


def test_logs_that_one_may_not_read_and_a_server_that_is_away_are_told(server: KfpServer) -> None:
    step = StepView("train", "failed", log_nodes=("pod",))
    server.fail("nodes/pod", 403, times=1)
    with pytest.raises(KfpError, match="you may not"):
        read_step_log(client(server), "run", step)
    server.login_page()
    with pytest.raises(KfpUnreachable, match="a proxy's page to log in"):
        read_step_log(client(server), "run", step)


def test_a_log_is_followed_piece_by_piece_to_the_end_of_its_step(server: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_log, "POLL_S", 0.0)
    course = iter([("waiting", ""), ("running", "a\n"), ("running", "a\n"), ("running", "a\nb\n"), ("failed", "other try\n")])

    def look() -> RunView:
        state, printed = next(course)
        server.logs["run", "pod"] = printed
        step = StepView("train", state, log_nodes=("pod",))  # pyright: ignore[reportArgumentType]
        return RunView("run", "tiny", "running", None, None, (step,))

    assert list(follow_step_log(client(server), look, "train")) == ["a\n", "b\n", "other try\n"]


def test_keys_in_addresses_of_a_log_are_not_shown() -> None:
    (problem,) = HaganeError(*problems_in("cannot read s3://me:pass@bucket/a\n")).problems
    assert "pass" not in problem
