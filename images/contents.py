"""An image -> what is in it: what the engine says of it, and what a probe inside finds."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.local.engine import Engine

PROBE = Path(__file__).with_name("probe.py").read_text()
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")


@dataclass(frozen=True)
class Contents:
    num_bytes: int
    """The whole image, base included."""
    num_layers: int
    labels: dict[str, str]
    user: str
    entrypoint: tuple[str, ...]
    environment: tuple[str, ...]
    probed: dict[str, Any]
    """See probe.py."""


def contents(engine: Engine, image: str) -> Contents:
    told = json.loads(engine.output("image", "inspect", image))[0]
    config = told["Config"]
    probed = json.loads(run_python(engine, image, ["-c", PROBE], flags=(*HARDENED, "--user=0")))  # who may look everywhere
    return Contents(
        told["Size"],
        len(told["RootFS"]["Layers"]),
        config["Labels"] or {},
        config["User"],
        tuple(config["Entrypoint"]),
        tuple(config["Env"]),
        probed,
    )


def labels(engine: Engine, image: str) -> dict[str, str]:
    return json.loads(engine.output("image", "inspect", image))[0]["Config"]["Labels"] or {}


def run_python(engine: Engine, image: str, words: list[str], *, flags: tuple[str, ...] = HARDENED) -> str:
    """What the image's Python printed, in a container that is as closed as can be. Raises CalledProcessError."""
    command = [engine.program, "run", "--rm", *flags, "--entrypoint", "python", image, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
