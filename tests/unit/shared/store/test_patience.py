"""A step asks again while something is away, says so, and gives up in time; a command asks once."""

import pytest

from components.shared.errors import StoreDenied, StoreUnreachable
from components.shared.log import set_up_log
from components.shared.store import patience
from components.shared.store.patience import patiently, waits, waits_no_more


class Server:
    """It raises its errors one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.num_calls = 0

    def answer(self) -> str:
        self.num_calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "here"


def ask(server: Server, **more: float) -> str:
    return patiently(server.answer, what="store", may_pass=lambda error: isinstance(error, StoreUnreachable), **more)


AWAY = StoreUnreachable("s3://b: no answer; check the network")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.01)


def test_a_step_asks_until_the_store_is_back_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(AWAY, AWAY)
    with waits(set_up_log("evaluate")):
        assert ask(server) == "here"
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("event=waiting")]
    assert len(lines) == 2
    assert 'what=store found="s3://b: no answer; check the network" waited_s=0 pause_s=0.0' in lines[0]


def test_what_does_not_pass_is_asked_once() -> None:
    server = Server(StoreDenied("wrong key"))
    with waits(set_up_log("evaluate")), pytest.raises(StoreDenied):
        ask(server)
    assert server.num_calls == 1


def test_a_command_and_a_step_that_waited_in_vain_ask_once() -> None:
    server = Server(AWAY, AWAY)
    with pytest.raises(StoreUnreachable):
        ask(server)
    with waits(set_up_log("evaluate")), waits_no_more(when=True), pytest.raises(StoreUnreachable):
        ask(server)
    assert server.num_calls == 2


def test_a_store_that_stays_away_is_given_up_with_its_own_error() -> None:
    server = Server(*[AWAY] * 1000)
    with waits(set_up_log("evaluate")), pytest.raises(StoreUnreachable, match="no answer"):
        ask(server, deadline_s=0.1)
    assert 2 < server.num_calls < 1000


def test_outside_a_step_a_call_may_have_a_patience_of_its_own() -> None:
    server = Server(AWAY)
    assert ask(server, otherwise_s=1.0) == "here"
