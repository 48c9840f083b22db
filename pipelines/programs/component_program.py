"""The components' programs, as the command line starts them."""

import os
import subprocess
import sys
from importlib.util import find_spec

from components.shared.errors import HaganeError
from components.shared.events import event_of
from components.shared.job.threads import SPINS


def require_installed(*modules: str) -> None:
    """Raises HaganeError with those that are not here, as in an image that holds the command line
    and one component only."""
    absent = [
        module
        for module in modules
        if find_spec(module.rpartition(".")[0]) is None or find_spec(module) is None
    ]
    names = [module.removesuffix(".__main__") for module in absent]
    if names:
        raise HaganeError(
            *(
                f"{name}: is not installed here; run this command where all components are"
                for name in names
            )
        )


TRAINING = ("torch", "transformers", "peft", "deepspeed")
"""Packages of the extra `train`, without which the other commands work."""


def require_training(*, otherwise: str = "") -> None:
    """Raises HaganeError where what trains, exports and evaluates is not installed. `otherwise`:
    what else to do, besides installing it."""
    absent = [name for name in TRAINING if find_spec(name) is None]
    if absent:
        raise HaganeError(
            f"this machine: {', '.join(absent)} not installed, which training, chat and export "
            f"need. Fix: pip install 'hagane[train]'{otherwise}"
        )


def talk_to(module: str, *arguments: str) -> int:
    """Runs `python -m module` with this program's stdin, stdout and stderr. Returns its exit code.

    Raises:
        HaganeError: it is not installed here.
    """
    require_installed(module)
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    environment = {"GOMP_SPINCOUNT": SPINS, **os.environ, "TQDM_DISABLE": "1"}
    return subprocess.run(command, env=environment, check=False).returncode


def output_of(module: str, *arguments: str) -> str:
    """What `python -m module` prints, its events as JSON.

    Raises:
        HaganeError: what it refused, with its exit code; or it is not installed here.
    """
    require_installed(module)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={"GOMP_SPINCOUNT": SPINS, **os.environ, "HAGANE_LOG": "json"},
        capture_output=True,
        text=True,
        check=False,
    )
    for event in map(event_of, done.stdout.splitlines()):
        if event and event["event"] == "failed":
            error = HaganeError(*event["problems"])
            error.exit_code = done.returncode
            raise error
    if done.returncode:
        raise RuntimeError(f"{module} ended with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout
