"""Whether this process has the GPU that the plan counts on, looked at before the processes of the
job join.

A process without one would otherwise join by gloo while the others wait for it in NCCL. All
processes hear of the first that cannot train, by the store at which they meet, and end with its
reason.
"""

import os
import platform
import re
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.constants import default_pg_timeout
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from components.shared.documents.plan import Plan
from components.shared.errors import PeerLost, RunFailed
from components.shared.job.training_job import GPUS_VARIABLE
from components.train.driver import Driver, driver_problem, find_driver

KEPT_BY_DRIVER = 0.05
"""Of a GPU's memory, what it may lack of the plan's figure: the driver keeps up to 3 % of what
nvidia-smi shows (T4: 14.6 of 15 GiB)."""
GIB = 2**30
POLL_S = 0.1
HEARD_S = 15.0
"""How long a process that cannot train waits for the others to read why, before it ends and takes
the store along."""


def device_problem(plan: Plan) -> str | None:
    """Why this process cannot train by this plan, as a sentence with its fix; None where it can.

    Without a GPU it would train on the cores, beside GPUs that are paid for.
    """
    num_promised = int(os.environ.get(GPUS_VARIABLE) or 0)
    if not plan.on_gpus and num_promised == 0:
        return None
    if not torch.cuda.is_available():
        return no_gpu_problem(find_driver(), torch.version.cuda)
    wanted = int(os.environ["LOCAL_WORLD_SIZE"])
    found = torch.cuda.device_count()
    if found < wanted:
        if num_promised:
            promised = f", the pod was promised {num_promised}"
        else:
            promised = ""
        return (
            f"found {found} GPUs for {wanted} processes of this node{promised}. Fix: see the pod's "
            "limits (cluster.gpu_resource), or set hardware.processes_per_node to what a node has"
        )
    return gpu_problem(plan, int(os.environ["LOCAL_RANK"]))


def no_gpu_problem(driver: Driver, torch_cuda: str | None) -> str:
    """Why torch, built with CUDA `torch_cuda`, finds no GPU, as a sentence with its fix."""
    found = f"the plan is for GPUs, but torch {torch.__version__} finds none here"
    if torch_cuda is None:
        return (
            f"{found}: it is built without CUDA. Fix: in a cluster use the image train-cuda "
            "(train_on_gpus in images/images.yaml); on this machine leave hardware.gpu out, or "
            "install torch with CUDA"
        )
    problem = driver_problem(driver, torch_cuda)
    if problem is None:
        return (
            f"{found}, though the driver {driver.version} fits. Fix: see that the pod requests "
            "GPUs (cluster.gpu_resource)"
        )
    why, fix = problem
    return f"{found}: {why}. Fix: {fix}"


def gpu_problem(plan: Plan, index: int) -> str | None:
    """Why the GPU of this index cannot train by this plan; None where it can."""
    gpu: Any = torch.cuda.get_device_properties(index)
    known = torch.cuda.get_arch_list()
    if not runs_on(known, gpu.major, gpu.minor):
        return (
            f"the {gpu.name} is of architecture sm_{gpu.major}{gpu.minor}, for which torch "
            f"{torch.__version__} has no kernels (it has {', '.join(known)}). Fix: train on "
            "another GPU, or build the image with a torch that has them"
        )
    least, limit = memory_counted_on(plan)
    if gpu.total_memory < least:
        return (
            f"the {gpu.name} has {gpu.total_memory / GIB:.1f} GiB, the plan fills up to "
            f"{least / GIB:.1f} of {limit / GIB:.1f} GiB. Fix: select the nodes of hardware.gpu by "
            "cluster.node_selector, or name the GPU that they have in hardware.gpu"
        )
    if plan.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return (
            f"the {gpu.name} does not compute bf16, in which the plan trains. Fix: name it in "
            "hardware.gpu, or set training.precision: fp32"
        )
    return None


def memory_counted_on(plan: Plan) -> tuple[float, int]:
    """Bytes of a GPU that the plan may fill, and those that it took the GPU to have; 0 where it
    states none."""
    limit = plan.memory.gpu_limit
    if limit is None:
        return 0.0, 0
    return limit * (1 - max(KEPT_BY_DRIVER, plan.memory.margin)), limit


def runs_on(arch_list: list[str], major: int, minor: int) -> bool:
    """Whether code for one of `arch_list` (sm_86, compute_90) runs on compute capability
    major.minor.

    CUDA's guarantee: binary code runs on the same major and an equal or later minor version, PTX on
    all later ones (CUDA C++ Programming Guide, "Application Compatibility"). The suffix a binds
    code to one version, f to one major.
    """
    named = [re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch) for arch in arch_list]
    of_cuda = [found for found in named if found is not None]
    if not of_cuda:
        return True  # ROCm's names say nothing of this
    for found in of_cuda:
        kind, code_major, code_minor, suffix = found[1], int(found[2]), int(found[3]), found[4]
        if kind == "compute" and not suffix and (code_major, code_minor) <= (major, minor):
            return True
        bound_to_one = suffix == "a" and code_minor != minor
        if kind == "sm" and code_major == major and code_minor <= minor and not bound_to_one:
            return True
    return False


def meet(problem: str | None) -> Any:
    """All processes of the job have met, and each can train. Returns the store at which they met,
    to be kept until they have joined.

    Raises:
        RunFailed: in all processes with the same line, when one has a problem.
        PeerLost: they did not all come before DeepSpeed's timeout.
    """
    store, rank, num_processes = next(rendezvous("env://", timeout=default_pg_timeout))
    meeting = Meeting(PrefixStore("devices", store), rank, num_processes)
    if problem is not None:
        meeting.refuse(f"training: process rank {rank} on {platform.node()}: {problem}")
    meeting.wait()
    return store


class Meeting:
    """What the processes of a job write to each other before they join: each that it can train, or
    one that it cannot."""

    def __init__(self, store: Any, rank: int, num_processes: int) -> None:
        self._store = store
        self._rank = rank
        self._num_processes = num_processes

    def refuse(self, line: str) -> None:
        """All processes end with this line, or with that of another which refused before."""
        self._store.compare_set("refused", "", line)

    def wait(self) -> None:
        """Raises as `meet`."""
        self._store.set(f"ready/{self._rank}", "")
        end = time.monotonic() + default_pg_timeout.total_seconds()
        while not self._all("ready"):
            self._end_if_refused()
            if time.monotonic() > end:
                minutes = default_pg_timeout / timedelta(minutes=1)
                raise PeerLost(
                    f"training: not all {self._num_processes} processes came within {minutes:g} "
                    "minutes"
                )
            time.sleep(POLL_S)
        self._end_if_refused()

    def _end_if_refused(self) -> None:
        if not self._store.check(["refused"]):
            return
        line = self._store.get("refused").decode()
        with suppress(dist.DistError):  # the store's own process may have ended by now
            self._wait_until_all_heard()
        raise RunFailed(line)

    def _wait_until_all_heard(self) -> None:
        self._store.set(f"heard/{self._rank}", "")
        end = time.monotonic() + HEARD_S
        while not self._all("heard") and time.monotonic() < end:
            time.sleep(POLL_S)

    def _all(self, what: str) -> bool:
        return self._store.check([f"{what}/{rank}" for rank in range(self._num_processes)])
