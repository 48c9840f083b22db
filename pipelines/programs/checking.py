"""A spec -> every problem that can be known before anything is begun, from all components at
once."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from components.shared.errors import HaganeError
from components.shared.events import event_of
from components.shared.machine import machine_flags
from components.shared.spec.file import spec_yaml, stored_spec
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import REPORT, SPEC
from components.shared.store.manifest import read_manifest
from components.shared.store.storage import open_store
from pipelines.programs.component_program import require_installed
from pipelines.screens.progress import Screen

CHECKING = ("prepare_dataset", "render_config")


def problems_of(spec: RunSpec, *, here: bool = True, console: Console | None = None) -> list[str]:
    """One line a problem of the data, the model, its LoRA targets, the batch sizes; where it is to
    run `here`, of the store and this machine too. Nothing is kept anywhere. How far the check of
    the data is, is shown on the console.

    Components are asked as programs, at the same time, since each brings libraries of its own.

    Raises:
        HaganeError: a component is not installed here, as in an image that holds the command line
            only.
    """
    require_installed(*(f"components.{component}.__main__" for component in CHECKING))
    problems = [*store_problems(spec), *machine_problems(spec)] if here else []
    with (
        tempfile.TemporaryDirectory() as folder,
        Screen(console or Console(quiet=True), (), title="checking every record") as screen,
    ):
        file = Path(folder) / "spec.yaml"
        file.write_text(spec_yaml(spec))
        programs = {component: _started(component, file) for component in CHECKING}
        for component, program in programs.items():
            reported = _problems_reported(
                component, program, screen, errors=file.with_name(component)
            )
            problems += [problem for problem in reported if problem not in problems]
    return problems


def has_report(spec: RunSpec) -> bool:
    """Whether a run of just this spec has its report. Then nothing would be begun that could be
    checked
    before: each step finds its work done, or says what has changed since."""
    store = open_store(spec.run_uri)
    try:
        claimed = stored_spec(store.read_bytes(SPEC), f"{store.uri}/{SPEC}")
        return claimed == spec and read_manifest(store, REPORT) is not None
    except HaganeError:  # no such run, or a store that cannot be read, which the checks tell
        return False


def _started(component: str, spec: Path) -> "subprocess.Popen[str]":
    """The component's check, whose errors are in a file beside the spec: nobody reads them while it
    runs."""
    with spec.with_name(component).open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", f"components.{component}", "--spec", str(spec), "--check"],
            env={**os.environ, "HAGANE_LOG": "json"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def _problems_reported(
    component: str, program: "subprocess.Popen[str]", screen: Screen, *, errors: Path
) -> list[str]:
    """What the program has to say, once it has ended; its progress was shown."""
    assert program.stdout is not None
    problems: list[str] = []
    with program:
        for event in filter(None, map(event_of, program.stdout)):
            if event["event"] == "progress":
                screen.show(event)
            elif event["event"] == "failed":
                problems += event["problems"]
    if program.returncode and not problems:
        raise RuntimeError(
            f"components.{component} --check ended with exit code "
            f"{program.returncode}:\n{errors.read_text()}"
        )
    return problems


def store_problems(spec: RunSpec) -> list[str]:
    try:
        open_store(spec.store).check()
    except HaganeError as error:
        return list(error.problems)
    return []


def machine_problems(spec: RunSpec) -> list[str]:
    if spec.backend == "local" and spec.hardware.names_gpu and "cuda" not in machine_flags():
        return [
            (
                "hardware: names a GPU, but this machine has none (/dev/nvidia0); leave it out to "
                "train on the CPU, or set another backend"
            )
        ]
    return []
