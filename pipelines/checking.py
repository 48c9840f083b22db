"""A spec -> every problem that can be known before anything is begun, from all components at once."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from components.shared.errors import HaganeError
from components.shared.log import event_of
from components.shared.machine import machine_flags
from components.shared.spec import RunSpec
from components.shared.spec_file import spec_yaml
from components.shared.storage import open_store
from pipelines.component_program import require_installed

CHECKING = ("prepare_dataset", "render_config")


def problems_of(spec: RunSpec, *, here: bool = True) -> list[str]:
    """One line a problem of the data, the model, its LoRA targets, the batch sizes; where it is to run `here`, of the store and this
    machine too. Nothing is kept anywhere.

    Components are asked as programs, at the same time, since each brings libraries of its own.

    Raises:
        HaganeError: a component is not installed here, as in an image that holds the command line only.
    """
    require_installed(*(f"components.{component}.__main__" for component in CHECKING))
    problems = [*store_problems(spec), *machine_problems(spec)] if here else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spec.yaml"
        file.write_text(spec_yaml(spec))
        environment = {**os.environ, "HAGANE_LOG": "json"}
        programs = [
            subprocess.Popen(
                [sys.executable, "-m", f"components.{component}", "--spec", str(file), "--check"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for component in CHECKING
        ]
        for component, program in zip(CHECKING, programs, strict=True):
            output, errors = program.communicate()
            told = [event["problems"] for event in map(event_of, output.splitlines()) if event and event["event"] == "failed"]
            if program.returncode and not told:
                raise RuntimeError(f"components.{component} --check ended with exit code {program.returncode}:\n{errors}")
            problems += [problem for group in told for problem in group if problem not in problems]
    return problems


def store_problems(spec: RunSpec) -> list[str]:
    try:
        open_store(spec.store).check()
    except HaganeError as error:
        return list(error.problems)
    return []


def machine_problems(spec: RunSpec) -> list[str]:
    if spec.backend == "local" and spec.hardware.names_gpu and "cuda" not in machine_flags():
        return ["hardware: names a GPU, but this machine has none (/dev/nvidia0); leave it out to train on the CPU, or set another backend"]
    return []
