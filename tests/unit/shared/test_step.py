"""A step of a run keeps why it failed, takes that back, and says when it continues a run whose end was said."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.shared.documents.failures import read_failures
from components.shared.documents.run_end import RunEnd, read_end, write_end
from components.shared.errors import DataError
from components.shared.log import set_up_log
from components.shared.step import failure_kept, step_of_run
from components.shared.store.layout import SPEC
from components.shared.store.series import Asked, note_asked
from components.shared.store.storage import LocalStore

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A run that KFP's run "mine" has claimed."""
    store = LocalStore(tmp_path / "run")
    store.write_bytes(SPEC, b"name: run")
    note_asked(store, Asked(series="run", fingerprint="f", kfp_run="mine"))
    return store


def fails(store: LocalStore, step: str, error: Exception) -> None:
    with pytest.raises(SystemExit):
        begin_and_raise(store, step, error)


def begin_and_raise(store: LocalStore, step: str, error: Exception) -> None:
    with step_of_run(step, store.uri) as log:
        log.info("begun", rows=3)
        raise error


def passes(store: LocalStore, step: str) -> None:
    with step_of_run(step, store.uri):
        pass


def test_a_step_that_fails_says_why_in_the_run_and_one_that_passes_takes_it_back(store: LocalStore) -> None:
    fails(store, "evaluate", DataError("held_out: no rows; set data.held_out"))
    (failure,) = read_failures(store, "mine")
    assert (failure.step, failure.message) == ("evaluate", "held_out: no rows; set data.held_out")
    assert "event=begun component=evaluate rows=3" in failure.log_tail[0]
    passes(store, "export_adapter")
    assert len(read_failures(store)) == 1
    passes(store, "evaluate")
    assert read_failures(store) == ()


def test_a_crash_is_kept_with_its_traceback_and_stays_a_crash(store: LocalStore) -> None:
    with pytest.raises(ZeroDivisionError), step_of_run("evaluate", store.uri):
        _ = 1 / 0
    (failure,) = read_failures(store)
    assert failure.message == "crashed: ZeroDivisionError: division by zero"
    assert failure.log_tail[-1] == "ZeroDivisionError: division by zero"


def test_nothing_is_written_where_no_run_is(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "none")
    fails(store, "evaluate", DataError("no run"))
    assert list(store.list()) == []


@pytest.mark.parametrize(("kfp_run", "kept"), [("mine", 1), ("other", 0)])
def test_the_claim_writes_into_no_other_runs_folder(kfp_run: str, kept: int, store: LocalStore) -> None:
    log = set_up_log("claim")
    with pytest.raises(DataError), failure_kept("claim_run", store.uri, log, kfp_run=kfp_run):
        raise DataError("data: none")
    assert len(read_failures(store)) == kept


def ended(store: LocalStore) -> RunEnd:
    end = read_end(store, "mine")
    assert end is not None
    return end


def test_a_step_that_runs_after_the_end_was_said_takes_it_back_to_the_new_end(
    store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    write_end(store, RunEnd(kfp_run="mine", state="FAILED", title="Run r failed", notified=True, at=NOW))
    passes(store, "evaluate")
    assert (ended(store).state, ended(store).resumed_by) == ("RUNNING", "evaluate")
    assert "Run r failed" in ended(store).title
    assert "event=goes_on" in capsys.readouterr().out
    fails(store, "write_report", DataError("a"))
    assert (ended(store).state, ended(store).title) == ("FAILED", "write_report failed after the run was continued")
    passes(store, "write_report")
    assert (ended(store).state, ended(store).title) == ("SUCCEEDED", "The run was continued and finished")
    assert ended(store).notified


def test_the_end_of_another_run_of_kfp_stays_as_it_is(store: LocalStore) -> None:
    said = RunEnd(kfp_run="earlier", state="FAILED", title="Run r failed", at=NOW)
    write_end(store, said)
    passes(store, "evaluate")
    assert read_end(store, "earlier") == said
    assert read_end(store, "mine") is None
