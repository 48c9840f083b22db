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

BY_KFP = """\
10:43:59.404 - INFO - Running pipeline: \x1b[95m'hagane-finetune'\x1b[0m
--------------------------------------------------------------------------------
10:44:09.975 - INFO - Executing task \x1b[96m'prepare-dataset'\x1b[0m
10:44:09.976 - INFO - Streamed logs:

    [KFP Executor 2026-12-01 10:44:11,500 INFO]: Looking for component `prepare_dataset`
    [KFP Executor 2026-12-01 10:44:11,503 INFO]: Got executor_input:
    {
        "inputs": {
            "parameterValues": {"run": "runs/tiny"}
        }
    }
    Loading weights: 100%|██████████| 21/21 [00:00<00:00, 2421.72it/s]
    {"event":"packed","component":"prepare_dataset","level":"info","rows":7}
    [KFP Executor 2026-12-01 10:44:20,970 INFO]: Wrote executor output file
    
10:44:22.047 - INFO - Task \x1b[96m'prepare-dataset'\x1b[0m finished with status SUCCESS
10:44:22.048 - INFO - Task \x1b[96m'prepare-dataset'\x1b[0m outputs:
    Output: '3147e34d69a9'
    page: HTML( name='page',
                metadata={} )
--------------------------------------------------------------------------------
10:44:22.059 - INFO - Executing task \x1b[96m'evaluate'\x1b[0m
10:44:22.066 - INFO - Streamed logs:

    Traceback (most recent call last):
      File "evaluate.py", line 1, in <module>
    \x1b[31mMemoryError\x1b[0m: no room
10:44:23.047 - ERROR - Task \x1b[96m'evaluate'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
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
    assert lines(run, "prepare_dataset") == [
        "event=packed component=prepare_dataset level=info rows=7",
        "a library's own line",
    ]
    assert lines(run, "launch_training") == [
        "event=progress component=train level=info done=1",
        "a line of torch",
    ]


def test_what_kfp_says_of_itself_is_left_out_with_all_colours(run: LocalStore) -> None:
    (work_folder(run.uri, "pipeline") / "pipeline.log").write_text(BY_KFP)
    packed = "event=packed component=prepare_dataset level=info rows=7"
    assert lines(run, "prepare_dataset") == [packed]
    failed = [
        "Traceback (most recent call last):",
        '  File "evaluate.py", line 1, in <module>',
        "MemoryError: no room",
        "Task 'evaluate' finished with status FAILURE",
    ]
    assert lines(run, "evaluate") == failed
    assert lines(run) == [packed, *failed]


def test_everything_that_was_kept_is_shown_on_demand(run: LocalStore) -> None:
    (work_folder(run.uri, "pipeline") / "pipeline.log").write_text(BY_KFP)
    kept = list(log_lines(run, run.uri, None, everything=True))
    assert len(kept) == len(BY_KFP.splitlines())
    assert kept[0] == "10:43:59.404 - INFO - Running pipeline: 'hagane-finetune'"
    with pytest.raises(SpecError, match=r"logs: --all is of the whole run. Fix: leave out"):
        list(log_lines(run, run.uri, "evaluate", everything=True))


def test_pods_of_a_training_and_a_steps_failure_are_read_from_the_store(run: LocalStore) -> None:
    run.write_bytes("logs/worker-0-abcd.log", b"step 1\n\x1b[31mout of memory\x1b[0m\n")
    write_failure(
        run,
        failure_of(
            "launch_training",
            SpecError("no node has a GPU"),
            ["event=waiting"],
            at=datetime(2026, 1, 2, tzinfo=UTC),
        ),
    )
    assert lines(run, "launch_training") == [
        *("==> logs/worker-0-abcd.log <==", "step 1", "out of memory"),
        *(
            "==> why launch_training failed, 2026-01-02 00:00 UTC <==",
            "launch_training: no node has a GPU",
            "event=waiting",
        ),
    ]


def test_what_is_not_known_here_is_said_with_where_to_look(run: LocalStore) -> None:
    with pytest.raises(
        SpecError,
        match=r"logs: found no log of evaluate on this machine .*hagane runs ID --log evaluate",
    ):
        lines(run, "evaluate")
    with pytest.raises(
        SpecError, match=r"logs: found 'evalute', allowed claim_run, prepare_dataset"
    ):
        lines(run, "evalute")
