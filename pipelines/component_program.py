"""A component's program, run to its end -> what it printed, or what it refused."""

import os
import subprocess
import sys

from components.shared.errors import HaganeError
from components.shared.log import event_of


def output_of(module: str, *arguments: str) -> str:
    """What `python -m module` prints, its events as JSON.

    Raises:
        HaganeError: what it refused, with its exit code.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env={**os.environ, "HAGANE_LOG": "json"}, capture_output=True, text=True, check=False
    )
    for event in map(event_of, done.stdout.splitlines()):
        if event and event["event"] == "failed":
            error = HaganeError(*event["problems"])
            error.exit_code = done.returncode
            raise error
    if done.returncode:
        raise RuntimeError(f"{module} ended with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout
