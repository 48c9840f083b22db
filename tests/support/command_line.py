"""`hagane` as a person runs it: a process of its own, its exit code, its lines."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HAGANE = [sys.executable, "-W", "ignore", "-m", "pipelines.cli"]


@dataclass(frozen=True)
class Finished:
    exit_code: int
    output: str
    errors: list[str]
    """Lines of stderr."""

    @property
    def problems(self) -> list[str]:
        """Those lines that say what is wrong; the others show progress, where it takes long."""
        return [line for line in self.errors if line.startswith("error: ")]


def hagane(
    *arguments: str | Path,
    work: Path,
    env: dict[str, str] | None = None,
    stdin: str = "",
    cwd: Path | None = None,
) -> Finished:
    """Runs the command line to its end, with scratch files below `work`."""
    done = subprocess.run(
        [*HAGANE, *map(str, arguments)],
        cwd=cwd,
        env=environment(work) | (env or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr.splitlines())


def environment(work: Path) -> dict[str, str]:
    return {**os.environ, "HAGANE_WORK": str(work), "COLUMNS": "200"}


def write_spec(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    return path
