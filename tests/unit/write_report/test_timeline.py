from pathlib import Path

import pytest

from components.write_report.gather import RunFound
from components.write_report.timeline import timeline
from tests.unit.write_report.example_run import find_example_run


@pytest.fixture
def found(tmp_path: Path) -> RunFound:
    return find_example_run(tmp_path / "store")


def test_starts_restarts_epochs_and_warnings_stand_in_the_order_of_steps(found: RunFound) -> None:
    lines = timeline(found)
    assert [(line.step, line.kind) for line in lines] == [
        (0, "start"),
        (0, "warning"),
        (30, "epoch"),
        (41, "restart"),
        (60, "epoch"),
        (90, "epoch"),
        (90, "done"),
    ]
    assert lines[0].when == "2026-11-30 09:12:03 UTC"
    assert (
        lines[3].what
        == "training was started again on 1 process, from the checkpoint after step 41"
    )
    assert lines[2].what == "epoch 1: held-out loss 2.0373, checkpoint of 78.2 MB"


def test_a_run_of_an_earlier_version_has_its_epochs(found: RunFound) -> None:
    history = found.history.model_copy(update={"starts": (), "step_seconds": ()})
    lines = timeline(RunFound(**{**vars(found), "history": history}))
    assert [line.kind for line in lines] == ["warning", "epoch", "epoch", "epoch", "done"]
    assert lines[1].when == ""


def test_skipped_steps_are_a_warning(found: RunFound) -> None:
    history = found.history.model_copy(update={"skipped_steps": 1})
    reported = [
        line.what
        for line in timeline(RunFound(**{**vars(found), "history": history}))
        if line.kind == "warning"
    ]
    assert reported[-1] == "fp16 skipped 1 step, whose scaled gradient overflowed"
