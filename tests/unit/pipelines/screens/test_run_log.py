from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.shared.documents.failures import failure_of, write_failure
from components.shared.errors import SpecError
from components.shared.step import work_folder
from components.shared.store.storage import LocalStore
from pipelines.screens.run_log import log_lines

KEPT = """\
{"event":"packed","component":"prepare_dataset","level":"info","rows":7}
a library's own line
{"event":"progress","component":"train","level":"info","done":1}
a line of torch
{"event":"exported","component":"export_adapter","level":"info"}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    return LocalStore(tmp_path / "store/tiny")


def lines(run: LocalStore, step: str | None = None) -> list[str]:
    return list(log_lines(run, run.uri, step))


def test_a_step_has_its_events_and_what_was_printed_between_them(run: LocalStore) -> None:
    (work_folder(run.uri, "pipeline") / "pipeline.log").write_text(KEPT)
    assert len(lines(run)) == 5
    assert lines(run, "prepare_dataset") == ["event=packed component=prepare_dataset level=info rows=7", "a library's own line"]
    assert lines(run, "launch_training") == ["event=progress component=train level=info done=1", "a line of torch"]


def test_pods_of_a_training_and_a_steps_failure_are_read_from_the_store(run: LocalStore) -> None:
    run.write_bytes("logs/worker-0-abcd.log", b"step 1\nout of memory\n")
    write_failure(
        run, failure_of("launch_training", SpecError("no node has a GPU"), ["event=waiting"], at=datetime(2026, 1, 2, tzinfo=UTC))
    )
    assert lines(run, "launch_training") == [
        *("==> logs/worker-0-abcd.log <==", "step 1", "out of memory"),
        *("==> why launch_training failed, 2026-01-02 00:00 UTC <==", "launch_training: no node has a GPU", "event=waiting"),
    ]


def test_what_is_not_known_here_is_said_with_where_to_look(run: LocalStore) -> None:
    with pytest.raises(SpecError, match=r"logs: found no log of evaluate on this machine .*hagane runs ID --log evaluate"):
        lines(run, "evaluate")
    with pytest.raises(SpecError, match=r"logs: found 'evalute', allowed claim_run, prepare_dataset"):
        lines(run, "evalute")
