"""What `make demo` starts, and what it prints at its end."""

import shlex

from laptop.demo import STEPS, next_commands
from pipelines.commands.global_options import DEMO_ENV

KEYS = ["--env-file", str(DEMO_ENV)]


def test_the_pipeline_and_the_commands_at_the_end_name_the_keys_of_the_demos_store() -> None:
    """Whatever keys the environment has, no request is signed with them."""
    started = [arguments for _, arguments in STEPS if "pipelines.cli" in arguments]
    printed = [shlex.split(line, comments=True) for line in next_commands()]
    assert len(started) == 1
    assert len(printed) >= 3
    for command in started + printed:
        at = command.index("--env-file")
        assert command[at : at + 2] == KEYS
