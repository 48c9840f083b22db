"""Of any number of starts of one run at once, one works on it; who is gone is followed at once here, and after a time elsewhere."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from components.shared.errors import SpecError
from components.shared.store import writer as module
from components.shared.store.storage import LocalStore, Store, open_store
from components.shared.store.writer import (
    Held,
    Writer,
    claim_for_kfp,
    given_back,
    held_run,
    kfp_run_alive,
    kfp_writer,
    this_writer,
)

NOTHING = lambda: None  # noqa: E731


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(request.getfixturevalue("s3_env").fresh_uri() if request.param == "s3" else str(tmp_path / "store"))


def elsewhere(name: str) -> Writer:
    """A writer on a machine whose processes cannot be seen from here."""
    return Writer(owner=name, host=name, machine=f"boot of {name}", pid=7, process_started=1)


def locks(store: Store) -> list[str]:
    return [stored.key for stored in store.list(".writer-")]


def test_a_second_start_is_refused_with_the_first_ones_name_and_leaves_nothing(store: Store) -> None:
    with held_run(store, elsewhere("alpha"), on_loss=NOTHING):
        before = locks(store)
        with pytest.raises(SpecError, match=r"is being worked on by process 7 on 'alpha', last seen \d+ s ago; wait"):
            held_run(store, elsewhere("beta"), on_loss=NOTHING).__enter__()
        assert locks(store) == before
    assert locks(store) == []


def test_the_next_start_after_an_end_goes_on_at_once(store: Store) -> None:
    for name in ("alpha", "beta"):
        with held_run(store, elsewhere(name), on_loss=NOTHING):
            assert len(locks(store)) == 1


@pytest.mark.parametrize("round", range(5))
def test_of_many_starts_at_the_same_moment_at_most_one_holds_the_run(store: Store, round: int) -> None:
    together, inside, most = threading.Barrier(8), [0], [0]
    counting = threading.Lock()

    def begin(name: str) -> bool:
        together.wait()
        try:
            with held_run(store, elsewhere(name), on_loss=NOTHING):
                with counting:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.2)
                with counting:
                    inside[0] -= 1
            return True
        except SpecError:
            return False

    with ThreadPoolExecutor(8) as pool:
        began = list(pool.map(begin, map(str, range(8))))
    assert most[0] == 1
    assert sum(began) >= 1
    assert locks(store) == []


def test_a_process_of_this_machine_that_was_killed_is_followed_at_once(store: Store) -> None:
    program = (
        "import os, signal, sys\n"
        "from components.shared.store.storage import open_store\n"
        "from components.shared.store.writer import held_run, this_writer\n"
        "held = held_run(open_store(sys.argv[1]), this_writer(), on_loss=print)\n"
        "held.__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, store.uri], env=os.environ, check=False)
    assert killed.returncode == -9
    assert len(locks(store)) == 1
    with held_run(store, this_writer(), on_loss=NOTHING) as held:
        assert held.number == 2
        assert locks(store) == [".writer-000002.json"]


def test_one_of_this_machine_that_is_still_there_is_not_followed_however_long_it_was_silent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKE_OVER_S", 0.0)
    with held_run(store, this_writer(), on_loss=NOTHING), pytest.raises(SpecError, match=rf"worked on by process {os.getpid()} on"):
        held_run(store, this_writer(), on_loss=NOTHING).__enter__()


def test_one_of_another_machine_is_followed_after_its_time_and_notices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = threading.Event()
    with held_run(store, elsewhere("alpha"), on_loss=lost.set, beat_s=0.3) as first:
        in_an_hour(monkeypatch)
        with held_run(store, elsewhere("beta"), on_loss=NOTHING):
            assert lost.wait(10)
            assert first.lost_to == "process 7 on 'beta'"
        assert locks(store) == []
    assert locks(store) == []


def test_one_that_was_taken_over_notices_also_after_its_taker_has_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = threading.Event()
    with held_run(store, elsewhere("alpha"), on_loss=lost.set, beat_s=0.5) as first:
        in_an_hour(monkeypatch)
        with held_run(store, elsewhere("beta"), on_loss=NOTHING):
            pass
        assert lost.wait(10)
        assert first.lost_to in ("someone unknown", "process 7 on 'beta'")
    assert locks(store) == []


@pytest.mark.parametrize("beat_s", [0.5, 60.0], ids=["at a beat", "at its end"])
def test_one_that_was_taken_over_leaves_a_third_ones_lock_of_the_same_number(store: Store, beat_s: float) -> None:
    lost = threading.Event()
    with held_run(store, elsewhere("alpha"), on_loss=lost.set, beat_s=beat_s) as first:
        # A taker had number 2 and has ended, so that the third one's number is 1 again.
        store.write_bytes(".writer-000001.json", elsewhere("gamma").model_dump_json().encode())
        assert lost.wait(3) == (beat_s < 3)
    assert first.lost_to == "process 7 on 'gamma'"
    assert b'"gamma"' in store.read_bytes(".writer-000001.json")


@pytest.mark.parametrize("call", ["touch", "delete_own"])
def test_a_store_that_is_away_does_not_hold_up_the_end(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, back, called = LocalStore(tmp_path), threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        called.set()
        back.wait(8)

    monkeypatch.setattr(module, "GIVE_BACK_S", 0.3)
    with held_run(store, elsewhere("alpha"), on_loss=NOTHING, beat_s=0.1 if call == "touch" else 60):
        monkeypatch.setattr(store, call, hang)
        assert call == "delete_own" or called.wait(10)
        began = time.monotonic()
    took_s = time.monotonic() - began
    back.set()
    assert took_s < 4


def then_once(monkeypatch: pytest.MonkeyPatch, what: str, then: Callable[[], object]) -> None:
    """`then` is done when this function of the module has looked, before anything is written: as if the process were held up there."""
    looks, left = getattr(module, what), [then]

    def look(*given: object) -> object:
        seen = looks(*given)
        if left:
            left.pop()()
        return seen

    monkeypatch.setattr(module, what, look)


def taken_by(store: Store, name: str, number: int) -> None:
    """As a taker does it, which may have ended, so that a third one's lock has the first number again."""
    store.delete(".writer-000001.json")
    store.write_bytes(f".writer-{number:06d}.json", elsewhere(name).model_dump_json().encode())


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("beat_s", [0.3, 60.0], ids=["at a beat", "at its end"])
def test_a_lock_that_is_taken_over_between_look_and_write_is_neither_brought_back_nor_removed(
    store: Store, beat_s: float, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = threading.Event()
    with held_run(store, elsewhere("alpha"), on_loss=lost.set, beat_s=beat_s):
        then_once(monkeypatch, "_taker", lambda: taken_by(store, "beta", number))
        assert lost.wait(3 if beat_s < 3 else 0.1) == (beat_s < 3)
    assert locks(store) == [f".writer-{number:06d}.json"]
    assert b'"beta"' in store.read_bytes(locks(store)[0])


def in_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's clock shows an hour later than the signs of life so far."""
    now = module._store_time
    monkeypatch.setattr(module, "_store_time", lambda store: now(store) + timedelta(hours=1))


def test_a_lock_that_cannot_be_read_holds_until_its_time_is_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_bytes(".writer-000004.json", b"{")
    with pytest.raises(SpecError, match="worked on by someone unknown"):
        held_run(store, elsewhere("beta"), on_loss=NOTHING).__enter__()
    in_an_hour(monkeypatch)
    with held_run(store, elsewhere("beta"), on_loss=NOTHING) as held:
        assert held.number == 5


def test_signs_of_life_are_written_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with held_run(store, elsewhere("alpha"), on_loss=NOTHING, beat_s=0.05) as held:
        assert isinstance(held, Held)
        first = next(iter(store.list(".writer-"))).written
        end = time.monotonic() + 10
        while next(iter(store.list(".writer-"))).written == first:
            assert time.monotonic() < end
            time.sleep(0.02)


def kfp_locks(store: Store) -> list[str]:
    return [Writer.model_validate_json(store.read_bytes(key)).kfp_run for key in locks(store)]


def test_a_run_of_kfp_refuses_another_spec_and_a_process_until_it_gives_back(store: Store) -> None:
    claim_for_kfp(store, kfp_writer("id-a", "spec 1"))
    with pytest.raises(SpecError, match=r"worked on by run 'id-a' of Kubeflow Pipelines, last seen \d+ s ago; .*; 3600 s after"):
        claim_for_kfp(store, kfp_writer("id-b", "spec 2"))
    with pytest.raises(SpecError, match="worked on by run 'id-a' of Kubeflow Pipelines"):
        held_run(store, elsewhere("alpha"), on_loss=NOTHING).__enter__()
    assert kfp_locks(store) == ["id-a"]
    given_back(store, "id-b")
    assert kfp_locks(store) == ["id-a"]
    given_back(store, "id-a")
    claim_for_kfp(store, kfp_writer("id-b", "spec 2"))
    assert kfp_locks(store) == ["id-b"]


def test_a_run_of_kfp_is_refused_by_a_process_and_finds_its_own_lock_again(store: Store) -> None:
    with held_run(store, elsewhere("alpha"), on_loss=NOTHING), pytest.raises(SpecError, match="worked on by process 7 on 'alpha'"):
        claim_for_kfp(store, kfp_writer("id-a", "spec 1"))
    for _ in range(2):  # a try of the same step finds its own
        claim_for_kfp(store, kfp_writer("id-a", "spec 1"))
    assert len(locks(store)) == 1


def test_a_run_of_kfp_with_the_same_spec_works_beside_the_first(store: Store) -> None:
    claim_for_kfp(store, kfp_writer("id-a", "spec 1"))
    claim_for_kfp(store, kfp_writer("id-b", "spec 1"))
    lost: list[str] = []
    with kfp_run_alive(store, "spec 1", on_loss=lambda: lost.append("a"), beat_s=0.05):
        time.sleep(0.2)
    assert (kfp_locks(store), lost) == (["id-a", "id-b"], [])
    given_back(store, "id-b")
    with pytest.raises(SpecError, match="worked on by run 'id-a' of Kubeflow Pipelines"):
        held_run(store, elsewhere("alpha"), on_loss=NOTHING).__enter__()


def test_a_step_shows_that_its_run_of_kfp_is_alive_and_is_ended_when_another_spec_took_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_for_kfp(store, kfp_writer("id-a", "spec 1"))
    (before,) = store.list(".writer-")
    lost = threading.Event()
    with kfp_run_alive(store, "spec 1", on_loss=lost.set, beat_s=0.05):
        _until(lambda: next(iter(store.list(".writer-"))).written > before.written)
        monkeypatch.setattr(module, "KFP_TAKE_OVER_S", -10.0)
        _until(lambda: _taken(store, "id-b", "spec 2"))
        assert lost.wait(10)
    assert kfp_locks(store) == ["id-b"]


def test_a_step_does_not_bring_back_the_lock_that_another_spec_took_between_look_and_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_for_kfp(store, kfp_writer("id-a", "spec 1"))
    lost = threading.Event()

    def take() -> None:
        store.delete(".writer-000001.json")
        store.write_bytes(".writer-000002.json", kfp_writer("id-b", "spec 2").model_dump_json().encode())

    with kfp_run_alive(store, "spec 1", on_loss=lost.set, beat_s=0.3):
        then_once(monkeypatch, "_locks", take)
        assert lost.wait(10)
    assert kfp_locks(store) == ["id-b"]


def _taken(store: Store, kfp_run: str, spec: str) -> bool:
    claim_for_kfp(store, kfp_writer(kfp_run, spec))
    return kfp_locks(store) == [kfp_run]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
