import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from components.shared.events import event_of
from pipelines.screens.progress import Outcome, Screen, duration, follow
from pipelines.screens.run import open_console

LINES = [
    "    some library says hello\n",
    '    {"event":"prepared","component":"prepare_dataset","num_rows":37,"level":"info"}\n',
    '{"event":"progress","component":"train","done":3,"total":30,"unit":"steps","loss":2.5,"tokens_s":180,"left_s":200.0,"level":"info"}\n',
    '{"event":"checkpoint","component":"train","epoch":1,"step":10,"committed":true,"removed":["checkpoints/step-000009"],"level":"info"}\n',
    (
        '{"event":"failed","component":"launch_training","exit_code":1,"problems":["training: '
        'process 1 was killed"],"level":"error"}\n'
    ),
]


def followed(lines: list[str], log_file: Path) -> tuple[Outcome, str]:
    """What `follow` made of the lines, and what was on the screen."""
    output = io.StringIO()
    console = open_console()
    console.file = output
    console.width = 120
    with Screen(console, ("prepare_dataset", "launch_training")) as screen:
        outcome = follow(lines, log_file, screen)
    return outcome, output.getvalue()


def test_events_are_shown_and_everything_is_in_the_log_file(tmp_path: Path) -> None:
    outcome, shown = followed(LINES, tmp_path / "log")
    for part in (
        "1/2   prepare_dataset",
        "num_rows=37",
        "2/2   launch_training",
        "3/30 steps",
        "3 min 20 s left",
        "checkpoint of epoch 1",
        "step-000009 is removed",
    ):
        assert part in shown
    assert "hello" not in shown
    assert (tmp_path / "log").read_text() == "".join(LINES)
    assert (outcome.problems, outcome.exit_code) == (["training: process 1 was killed"], 1)


def test_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    found = "[/src/gloo/pair.cc:537] [bold] Read error"
    line = {"event": "peer_lost", "component": "train", "found": found, "level": "warning"}
    _, shown = followed([json.dumps(line)], tmp_path / "log")
    assert f"peer lost  found={found}" in shown


@pytest.mark.parametrize("line", ["plain words", '{"event": broken', '{"loss": 1}'])
def test_what_is_no_event_is_left_alone(line: str) -> None:
    assert event_of(line) is None


def test_durations_are_what_a_person_reads_at_a_glance() -> None:
    assert [duration(seconds) for seconds in (0.4, 75, 200, 3725)] == [
        "0 s",
        "75 s",
        "3 min 20 s",
        "62 min 05 s",
    ]


def test_progress_before_any_step_stands_behind_the_title() -> None:
    output = io.StringIO()
    console = open_console()
    console.file = output
    console.width = 120
    event = event_of(
        '{"event":"progress","component":"prepare_dataset","done":600,"total":600,"unit":"conversations","left_s":0.0,"level":"info"}'
    )
    assert event is not None
    with Screen(console, (), title="checking every record") as screen:
        screen.show(event)
    assert "checking every record: 600/600 conversations" in output.getvalue()


@pytest.mark.parametrize(
    "console",
    [
        Console(file=io.StringIO()),
        Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"}),
    ],
)
def test_nothing_is_printed_where_nothing_was_shown(console: Console) -> None:
    with Screen(console, (), title="checking every record"):
        pass
    assert isinstance(console.file, io.StringIO)
    assert not console.file.getvalue()
