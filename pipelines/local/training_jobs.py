"""Starts the training containers that launch_training asks for, as the PyTorchJob's controller does in a cluster."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TextIO

import docker
import docker.errors

from components.shared.job.training_job import TrainingJob, write_whole
from pipelines.local.containers import ContainerSettings, remove_containers, run_container

POLL_S = 0.2
NOT_STARTED = 125
"""Exit code of `docker run` itself for a container that could not be started."""


@contextmanager
def training_jobs_served(folder: Path, settings: ContainerSettings, image: str) -> Iterator[None]:
    """Inside the block, every job asked for in `folder` runs, in `image` and no other, as hardened as the steps are."""
    done = threading.Event()
    client = docker.from_env()
    remove_containers(client, settings.run_uri, stop_s=settings.stop_s)
    watcher = threading.Thread(target=_watch, args=(client, folder, settings, image, done))
    watcher.start()
    try:
        yield
    finally:
        done.set()
        remove_containers(client, settings.run_uri, stop_s=settings.stop_s)  # ends a job that is still followed
        watcher.join()
        remove_containers(client, settings.run_uri, stop_s=settings.stop_s)  # one that was started meanwhile
        client.close()


def _watch(client: docker.DockerClient, folder: Path, settings: ContainerSettings, image: str, done: threading.Event) -> None:
    seen: set[Path] = set()
    while not done.wait(POLL_S):
        for asked in set(folder.glob("[!.]*.json")) - seen:
            seen.add(asked)
            _run_job(client, asked, settings, image)


def _run_job(client: docker.DockerClient, asked: Path, settings: ContainerSettings, image: str) -> None:
    """The job ran to its end, or could not be started; what it printed and its exit code are beside the file that asked."""
    exit_code = NOT_STARTED
    try:
        with asked.with_suffix(".log").open("w", encoding="utf-8") as log:
            try:
                job = TrainingJob.model_validate_json(asked.read_bytes())
                exit_code = _run_container(client, job, settings, image, log, asked.with_suffix(".cancel"))
            except (ValueError, docker.errors.DockerException) as error:
                log.write(f"training container: {' '.join(str(error).split())}\n")
    finally:
        write_whole(asked.with_suffix(".exit_code"), str(exit_code))


def _run_container(
    client: docker.DockerClient, job: TrainingJob, settings: ContainerSettings, image: str, log: TextIO, cancel: Path
) -> int:
    if job.image != image:
        log.write(f"training container: asked for image {job.image!r}, images.yaml says {image!r}\n")
        return NOT_STARTED
    arguments = settings.run_arguments()
    # torchrun takes each of its options from PET_<OPTION>, which is how a PyTorchJob tells it as well.
    told = {"PET_STANDALONE": "1", "PET_NPROC_PER_NODE": str(job.num_processes)}
    arguments["environment"] = job.environment | told | arguments["environment"]
    name = f"hagane-train-{cancel.stem}"
    ended = threading.Event()
    stopper = threading.Thread(target=_stop_when_cancelled, args=(name, cancel, ended, settings.stop_s))
    stopper.start()
    try:
        return run_container(
            client, image, [job.run], arguments | {"name": name}, write=lambda text: print(text, end="", file=log, flush=True)
        )
    finally:
        ended.set()
        stopper.join()


def _stop_when_cancelled(name: str, cancel: Path, ended: threading.Event, stop_s: int) -> None:
    while not ended.wait(POLL_S):
        if cancel.exists():
            with closing(docker.from_env()) as client, suppress(docker.errors.NotFound):
                client.containers.get(name).stop(timeout=stop_s)
            return
