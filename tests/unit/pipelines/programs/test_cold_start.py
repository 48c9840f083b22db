"""`hagane plan SPEC --rows N` loads no library that it does not use: it answers in a second of
CPU."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.example_plans import ROOT

SPEC = ROOT / "specs/plans/elyza-7b-lora-1x24gb.yaml"
HEAVY = {"torch", "transformers", "kfp", "kubernetes", "boto3", "pyarrow", "tokenizers", "jinja2"}


def imported_by(*command: str | Path) -> set[str]:
    """Top-level packages that `python -m …` has imported itself."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *map(str, command)],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_the_command_that_shows_a_plan_loads_only_what_it_prints_with() -> None:
    names = imported_by("pipelines.cli", "plan", SPEC, "--rows", "50")
    assert {"typer", "rich", "pydantic"} <= names
    assert names & {*HEAVY, "structlog"} == set()


def test_the_program_that_plans_from_a_config_loads_no_page_and_no_store(tmp_path: Path) -> None:
    planning = ("--rows", "50", "--no-page", "--out", tmp_path / "plan")
    names = imported_by("components.render_config", "--spec", SPEC, *planning)
    assert {"pydantic", "structlog"} <= names
    assert names & {*HEAVY, "typer"} == set()
