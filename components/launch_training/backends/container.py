"""The `local` backend inside a container: a training container beside this one, followed line by
line to its end."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.launch_training.backends.local import follow_to_end
from components.shared.job.training_job import TrainingJob, write_whole
from components.shared.processes import left_by_signal
from components.shared.step import Log

POLL_S = 0.2


def run_beside(job: TrainingJob, folder: Path, log: Log) -> None:
    """The job ran and succeeded; its events are passed on as this process's own. SIGTERM to this
    process ends the job too.

    Raises:
        RunFailed: the job failed, or could not be started.
    """
    name = uuid.uuid4().hex[:12]
    write_whole(folder / f"{name}.json", job.model_dump_json())
    exit_code = folder / f"{name}.exit_code"
    cancel = folder / f"{name}.cancel"
    stop = left_by_signal(
        ending="training: its container is asked to end",
        left="training: its container may still run; look for it by `docker ps`",
    )
    with stop, _cancelled_when_left(cancel, exit_code):
        follow_to_end(
            _lines(folder / f"{name}.log", exit_code), lambda: int(exit_code.read_text()), log
        )


def _lines(printed: Path, exit_code: Path) -> Iterator[str]:
    """Every line of the file, each when it is whole, until `exit_code` is there."""
    while not printed.exists():
        if exit_code.exists():
            return
        time.sleep(POLL_S)
    with printed.open(encoding="utf-8", errors="replace") as stream:
        begun = ""
        while True:
            ended = (
                exit_code.exists()
            )  # looked up before reading, so that what it printed last is read too
            while text := stream.readline():
                begun += text
                if begun.endswith("\n"):
                    yield begun
                    begun = ""
            if ended:
                if begun:
                    yield begun
                return
            time.sleep(POLL_S)


@contextmanager
def _cancelled_when_left(cancel: Path, exit_code: Path) -> Iterator[None]:
    try:
        yield
    finally:
        if not exit_code.exists():
            cancel.touch()
