"""How launch_training, itself in a container, has a training container started beside it: by files in a folder that both sides see.

    <id>.json        what to start; written whole by launch_training
    <id>.log         what it prints, as it comes    } written by whoever starts containers here
    <id>.exit_code   how it ended; written last     }
    <id>.cancel      launch_training wants it ended

So no container needs the engine's socket, which would make it master of the machine, and each image holds its own
component only: what starts the workers in a cluster, the PyTorchJob's controller, is not in the launcher's image either.
"""

import os
from pathlib import Path

from components.shared.spec import FrozenModel

FOLDER_VARIABLE = "HAGANE_TRAINING_JOBS"
"""Environment variable that tells launch_training the folder; it is not set where training is a process of its own."""


class TrainingJob(FrozenModel):
    """One training container."""

    image: str
    run: str
    """URI of the run's folder: the only argument of components.train."""
    num_processes: int
    environment: dict[str, str]
    """Settings of the workers, no secrets: those the container gets from whoever starts it."""


def jobs_folder() -> Path | None:
    """Where to ask for a training container; None where nobody would answer."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return None if not folder else Path(folder)


def write_whole(path: Path, text: str) -> None:
    """The file appears with all its text."""
    beside = path.with_name(f".new-{path.name}")
    beside.write_text(text)
    beside.rename(path)
