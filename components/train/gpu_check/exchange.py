"""All-reduce among the processes of a node, and of all nodes: whether the sums are right, and how
fast.

`torchrun -m components.train.gpu_check.exchange` prints an event `exchanged` for each, by the first
process of each node. The bandwidth is nccl-tests' bus bandwidth (doc/PERFORMANCE.md): 2 (n - 1) / n
of the bytes, a second.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from components.shared.documents.findings import Finding
from components.shared.documents.gpu_check import CheckRequest
from components.shared.events import Event
from components.shared.figures import plain
from components.shared.log import set_up_log
from components.shared.processes import end_with_parent
from components.shared.step import Log
from components.train.gpu_check.device_checks import LEAST_SHARE
from components.train.gpu_check.groups import Ran

GPU_BYTES, CPU_BYTES = 64 * 2**20, 16 * 2**20
MEET_S = 60
"""How long processes wait for each other: those of other nodes may still load torch."""
ON_NODE, ACROSS = "node", "nodes"
NAMES = {ON_NODE: "all-reduce in the node", ACROSS: "all-reduce between nodes"}


def exchange_findings(request: CheckRequest, ran: Ran, *, on_gpus: bool) -> Iterator[Finding]:
    """`on_gpus`: whether NCCL did it on GPUs; else gloo did, and the plan's rates are none of its
    own."""
    by_scope = {event["scope"]: event for event in ran.all_of("exchanged")}
    for scope in (ON_NODE, ACROSS):
        event = by_scope.get(scope)
        if event is not None:
            yield _judged(request, scope, event, on_gpus=on_gpus)
            continue
        if scope == ON_NODE:
            alone = request.processes_per_node
        else:
            alone = request.num_nodes
        if alone == 1:
            yield Finding(
                check=NAMES[scope],
                state="skipped",
                found=f"the plan has one {'process a node' if scope == ON_NODE else 'node'}",
            )
        else:
            yield Finding(
                check=NAMES[scope],
                state="failed",
                found=ran.problem or "nothing was measured",
                fix=ran.fix,
            )


def _judged(request: CheckRequest, scope: str, event: Event, *, on_gpus: bool) -> Finding:
    check, gb_s, hardware = NAMES[scope], float(event["gb_s"]), request.plan.hardware
    if on_gpus:
        by = "NCCL"
    else:
        by = "gloo"
    seen = f"{event['num_processes']} processes by {by}: {plain(gb_s)} GB/s"
    if not event["right"]:
        fix = (
            "a GPU or a link gives wrong numbers: look at nvidia-smi -q for ECC errors, and take "
            "the node out"
        )
        return Finding(
            check=check, state="failed", found=f"{seen}, but the sums are wrong", fix=fix
        )
    if scope == ON_NODE:
        planned = hardware.link_gb_s
    else:
        planned = hardware.network_gb_s
    if planned is None or not on_gpus:
        return Finding(check=check, state="ok", found=seen)
    beside = f"{seen}; the plan assumes {plain(planned)}"
    if gb_s >= LEAST_SHARE * planned:
        return Finding(check=check, state="ok", found=beside)
    if scope == ON_NODE:
        fix = (
            "look at nvidia-smi topo -m: without NVLink GPUs talk over PCIe; NCCL_DEBUG=INFO says "
            "by which way"
        )
    else:
        fix = (
            "give pods the fast network (docs/gpus.md, RDMA), or plan with "
            f"hardware.network_gbit_s: {plain(8 * gb_s)}"
        )
    return Finding(check=check, state="warning", found=beside, fix=fix)


def exchange(group: Any, device: torch.device) -> tuple[float, bool]:
    """(GB/s, whether all sums are right) of all-reduces in a process group, None for all. All of
    its processes must call this."""
    if device.type == "cuda":
        num_bytes = GPU_BYTES
    else:
        num_bytes = CPU_BYTES
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    numbers = torch.full((num_bytes // 4,), float(rank + 1), device=device)
    dist.all_reduce(numbers, group=group)
    right = bool((numbers == size * (size + 1) / 2).all())
    took: list[float] = []
    for _ in range(5):
        _finish(device)
        begun = time.perf_counter()
        dist.all_reduce(numbers, group=group)
        _finish(device)
        took.append(time.perf_counter() - begun)
    return 2 * (size - 1) / size * num_bytes / min(took) / 1e9, right


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    end_with_parent(signal.SIGKILL)  # torchrun starts each process in a session of its own
    log = set_up_log("train")
    on_gpus = torch.cuda.is_available()
    local_rank, per_node = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if on_gpus:
        device = torch.device("cuda", local_rank)
    else:
        device = torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    if on_gpus:
        backend = "nccl"
    else:
        backend = "gloo"
    dist.init_process_group(
        backend, timeout=timedelta(seconds=MEET_S), device_id=device if on_gpus else None
    )
    world = dist.get_world_size()
    groups = [
        dist.new_group(list(range(first, first + per_node))) for first in range(0, world, per_node)
    ]
    if per_node > 1:
        gb_s, right = exchange(groups[dist.get_rank() // per_node], device)
        _report(log, ON_NODE, per_node, gb_s, right)
    if world > per_node:
        gb_s, right = exchange(None, device)
        _report(log, ACROSS, world, gb_s, right)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may abort a normal exit (Python 3.11, torch 2.13)


def _report(log: Log, scope: str, num_processes: int, gb_s: float, right: bool) -> None:
    """Of all processes: the slowest, and whether all sums are right."""
    found: list[tuple[float, bool]] = [(gb_s, right)] * dist.get_world_size()
    dist.all_gather_object(found, (gb_s, right))
    if int(os.environ["LOCAL_RANK"]) == 0:
        slowest, all_right = min(each for each, _ in found), all(each for _, each in found)
        log.info(
            "exchanged", scope=scope, num_processes=num_processes, gb_s=slowest, right=all_right
        )


if __name__ == "__main__":
    main()
