"""What every command has: options before and after it, colours, near misses, help on topics."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from laptop.demo import NEXT
from tests.support.command_line import HAGANE, environment, hagane

COLOUR = re.compile(r"\x1b\[(?:\d+;)*3\d")


def on_a_terminal(*arguments: str, work: Path, env: dict[str, str]) -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    full = environment(work) | {"TERM": "xterm-256color"} | env
    full.pop("PYTEST_VERSION", None)
    done = subprocess.Popen([*HAGANE, *arguments], stdout=theirs, stderr=theirs, env=full)
    os.close(theirs)
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    done.wait()
    os.close(ours)
    return b"".join(parts).decode()


def test_colours_are_for_terminals_without_no_color(tmp_path: Path) -> None:
    command = ("status", "--help")
    assert COLOUR.search(on_a_terminal(*command, work=tmp_path, env={}))
    assert not COLOUR.search(on_a_terminal(*command, work=tmp_path, env={"NO_COLOR": "1"}))
    assert "\x1b" not in hagane(*command, work=tmp_path).output


def test_a_near_miss_is_named(tmp_path: Path) -> None:
    wrong = hagane("plann", work=tmp_path)
    assert (wrong.exit_code, "Did you mean 'plan'?" in "\n".join(wrong.errors)) == (2, True)
    option = hagane("plan", "--row", "5", work=tmp_path)
    assert (option.exit_code, "--rows" in "\n".join(option.errors)) == (2, True)
    topic = hagane("help", "prox", work=tmp_path)
    assert topic.exit_code == 2
    assert "did you mean 'proxy-and-mirror'?" in topic.errors[0]


def test_help_lists_topics_and_prints_one(tmp_path: Path) -> None:
    listed = hagane("help", work=tmp_path)
    assert "gated-models" in listed.output
    assert hagane("help", "gated-models", work=tmp_path).output.startswith("# ")


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_shows_where_an_error_came_from(tmp_path: Path, place: str) -> None:
    command = ["status", "none.yaml"]
    done = hagane(*(["-v", *command] if place == "before" else [*command, "-v"]), work=tmp_path)
    assert done.exit_code == 2
    assert any(line.startswith("Traceback") for line in done.errors)
    assert done.errors[-1].startswith("error: none.yaml: no such file")


def test_the_demo_ends_with_commands_that_exist(tmp_path: Path) -> None:
    for arguments, _ in NEXT:
        command, *rest = arguments.split()
        done = hagane(command, "--help", work=tmp_path)
        assert done.exit_code == 0
        assert all(option in done.output for option in rest if option.startswith("--"))
