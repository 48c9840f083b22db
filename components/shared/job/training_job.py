"""How launch_training, itself in a container, has a training container started beside it: by files
in a folder that both sides see.

    <id>.json        what to start; written whole by launch_training
    <id>.log         what it prints, as it comes    } written by whoever starts containers here
    <id>.exit_code   how it ended; written last     }
    <id>.cancel      launch_training wants it ended

So no container needs the engine's socket, which would make it master of the machine, and each image
holds its own component only: what starts the workers in a cluster, the PyTorchJob's controller, is
not in the launcher's image either."""

import math
import os
from pathlib import Path

from components.shared.documents.fields import FrozenModel
from components.shared.job.threads import SPINS

FOLDER_VARIABLE = "HAGANE_TRAINING_JOBS"
"""Environment variable that tells launch_training the folder; it is not set where training is a
process of its own."""


PYTORCHJOB_CONTAINER, TRAINJOB_CONTAINER = "pytorch", "node"
"""What Kubeflow's training operator and its Trainer want the training container to be called; the
latter its replicated job, too."""
LEASE_LABELS = {
    "app.kubernetes.io/name": "hagane",
    "app.kubernetes.io/component": "train",
    "app.kubernetes.io/managed-by": "hagane",
}
"""Labels of every job in a cluster, by which those that nobody follows any more are found."""
RUN_ANNOTATION, TRAINING_ANNOTATION, LEASE_ANNOTATION = (
    "hagane.dev/run-uri",
    "hagane.dev/training",
    "hagane.dev/followed-at",
)
"""Annotations of a job in a cluster: the run's URI, the plan's training_digest, and when its
launcher last looked after it (ISO 8601)."""
KFP_RUN_ANNOTATION = "hagane.dev/kfp-run"
"""Of a job that a run of Kubeflow Pipelines began: KFP's id of that run, which alone may end it."""
LAUNCHER_ANNOTATION = "hagane.dev/launched-by"
"""Of a job that `hagane run` follows: which launcher, by an id that no other has. It alone may end
the job when it is stopped."""
IS_DELETED = "is deleted"
"""What a launcher says of its job when the API server has taken its deletion: `job NAME is
deleted`."""
KEEP_ANNOTATION = "hagane.dev/keep-finished-seconds"
"""Of a job of a kind that does not remove itself: how long it stays when it is over."""
OWN_RUNTIME = "hagane"
"""The namespace's TrainingRuntime of k8s/overlays/trainjob, made for `cluster.max_restarts`."""
OWN_RUNTIME_GRACE_S, OWN_RUNTIME_RESTARTS = 125, 100
"""Its terminationGracePeriodSeconds and maxRestarts, as the overlay has them."""
OF_RUNTIME = ("automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds")
"""Fields of a pod that a TrainJob's runtime decides: Trainer 2.2 has no place for them, and the
last one, which 2.3 has, is erased by Kueue 0.17 to 0.19 when it admits the job, after which
JobSet's webhook refuses to resume it."""
AFTER_GRACE_S = 5
"""Seconds after the workers' own grace in which they leave before they are killed."""
ENVIRONMENT_VARIABLE = "HAGANE_ENVIRONMENT"
"""Folder of folders whose files are environment variables, each named as its file; set where a job
cannot set them itself."""
GPUS_VARIABLE = "HAGANE_GPUS"
"""Environment variable: the number of GPUs that the plan has on each node; not set on CPUs."""
SOURCE = "HAGANE_SOURCE_"
"""With a number after it: prefix under which a pod says which variables one ConfigMap or Secret
brings."""


class TrainingJob(FrozenModel):
    """One training container."""

    image: str
    run: str
    """URI of the run's folder: the only argument of components.train."""
    num_processes: int
    environment: dict[str, str]
    """Settings of the workers, no secrets: those the container gets from whoever starts it."""


def patience_minutes(checkpoint_bytes: int, upload_mb_s: float) -> int:
    """How long a process waits for another: half an hour, in which an uploader gives up, and three
    times a whole checkpoint's way from the store, as when one process of a machine fetches and
    converts it for another number of processes."""
    return 30 + math.ceil(3 * checkpoint_bytes / (upload_mb_s * 1e6) / 60)


def shared_memory_bytes(processes_per_node: int) -> int:
    """Bytes of /dev/shm for NCCL between the GPUs of one node; 0 for one GPU.

    NCCL takes 9.6 MB a channel and peer there (NVIDIA/nccl issues 525, 1518). 1 GiB is tight for 8
    GPUs that are joined by PCIe alone, so half a GiB for each GPU. Kubernetes counts what is used.
    """
    if processes_per_node < 2:
        return 0
    return max(2**30, processes_per_node * 2**29)


def gpu_environment(num_gpus: int) -> dict[str, str]:
    """Variables of training processes on a node where the plan has `num_gpus` GPUs."""
    return {
        # What the node must have, checked before the processes meet.
        GPUS_VARIABLE: str(num_gpus),
        # Row lengths differ from step to step: fixed segments of memory would fragment.
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        # NCCL prints nothing of its own without it, not even why it gives up.
        "NCCL_DEBUG": "WARN",
    }


def worker_environment(
    *, threads: int | None, grace_seconds: int, patience_minutes: int, num_gpus: int = 0
) -> dict[str, str]:
    """Variables of the training processes, whatever starts them.

    `threads`: of each process, None where that is open. `num_gpus`: of one node, 0 on CPUs.
    """
    settings = {
        # glibc's arenas stay as they are: with MALLOC_ARENA_MAX=2 the threads of a product in bf16
        # wait for one lock, and a low MALLOC_MMAP_THRESHOLD_ costs a page fault for each page of
        # each activation.
        "HAGANE_LOG": "json",
        # two lines a step from torch 2.13 about DeepSpeed's calls
        "PYTHONWARNINGS": "ignore::FutureWarning",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(
            grace_seconds
        ),  # torchrun's own is 30 s, then it kills
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "GOMP_SPINCOUNT": SPINS,
        "DEEPSPEED_TIMEOUT": str(
            patience_minutes
        ),  # of every exchange among processes; 10 unless set (deepspeed/constants.py)
    }
    if num_gpus:
        settings |= gpu_environment(num_gpus)
    if threads is None:
        return settings
    return {**settings, "OMP_NUM_THREADS": str(threads)}


def environment_in(folder: Path) -> dict[str, str]:
    """The files of its folders, each a variable; of one name the last folder's counts."""
    return {name: value for source in sources_in(folder) for name, value in source.items()}


def sources_in(folder: Path) -> list[dict[str, str]]:
    """The variables that each of its folders brings, in order. Kubernetes' own links there begin
    with a dot."""
    sources: list[dict[str, str]] = []
    for source in sorted(folder.iterdir()):
        files = [file for file in sorted(source.iterdir()) if not file.name.startswith(".")]
        sources.append({file.name: file.read_text() for file in files})
    return sources


def jobs_folder() -> Path | None:
    """Where to ask for a training container; None where nobody would answer."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    return Path(folder)


def write_whole(path: Path, text: str) -> None:
    """The file appears with all its text."""
    beside = path.with_name(f".new-{path.name}")
    beside.write_text(text)
    beside.rename(path)
