"""The spec's hardware section (or this machine) -> what the plan may count on: memory and speed of
a device, memory of a node."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from components.render_config.cost.gpus import GPUS, OTHER_MAKERS, TOO_OLD, Device, other_device
from components.shared.documents.plan import Precision
from components.shared.errors import SpecError
from components.shared.machine import computes_bf16, machine_flags
from components.shared.spec.hardware import HardwareSpec
from components.shared.spec.run_spec import RunSpec

GIB = 2**30
NETWORK_GBIT_S = 100
"""Between nodes, where the spec does not say: the usual Ethernet of a GPU node."""
UNNAMED_GPU = "gpu"
"""A GPU of which the spec tells only the memory."""


# One core of a server processor in torch's plain matrix product, in TFLOP/s, measured: fp32 on a
# Zen 3 and with AVX-512, bf16 with avx512_bf16 and, a number at a time, without such instructions
# (shared/machine.py).
CORE_FP32, CORE_FP32_AVX512, CORE_BF16, CORE_SLOW_BF16 = 0.063, 0.105, 0.47, 0.0009


def core_tflops(flags: frozenset[str], weight_bytes: int) -> float:
    """Of one core with these flags in fp32 (4 bytes a weight) or bf16 (2). Of a processor that is
    not known, without flags, what one without bf16 instructions reaches in fp32."""
    if weight_bytes == 2 and flags:
        if computes_bf16(flags):
            return CORE_BF16
        return CORE_SLOW_BF16
    if "avx512f" in flags:
        return CORE_FP32_AVX512
    return CORE_FP32


@dataclass(frozen=True)
class Machine:
    """What planning knows of a machine: the one it runs on, or that trains."""

    flags: frozenset[str] = frozenset()
    """What its processor can do, and `cuda` where it has a GPU (shared/machine.py)."""
    memory_bytes: int | None = None
    num_cores: int = 1


def this_machine() -> Machine:
    return Machine(
        flags=machine_flags(), memory_bytes=machine_memory(), num_cores=len(os.sched_getaffinity(0))
    )


def machine_that_trains(spec: RunSpec, planner: Machine) -> Machine:
    """The one that plans, or of a cluster's nodes what the spec says: a plan of the same run is the
    same wherever it is made."""
    if spec.backend == "local":
        return planner
    return Machine(num_cores=max(1, int(spec.cluster.cpus or spec.hardware.processes_per_node)))


@dataclass(frozen=True)
class Hardware:
    gpu: str | None
    """Name of the GPU, `gpu` for one known only by its memory, None on a CPU."""
    device: Device | None
    gpu_bytes: int | None
    host_bytes: int | None
    """Of one node."""
    num_nodes: int
    processes_per_node: int
    margin: float
    network_gb_s: float = NETWORK_GBIT_S / 8
    """What a node sends to others at once, in GB/s."""
    num_cores: int = 1
    """Of a node, with what its processor can do; both count where it has no GPU."""
    flags: frozenset[str] = frozenset()

    @property
    def num_processes(self) -> int:
        return self.num_nodes * self.processes_per_node

    def gpu_tflops(self, precision: Precision) -> float | None:
        """Dense matrix products of one GPU; None on a CPU and where that is not known."""
        if self.device is None:
            return None
        if precision == "fp32":
            return self.device.fp32_tflops
        return self.device.half_tflops

    def usable(self, limit: int) -> int:
        """Of this many bytes, those that the plan may fill."""
        return int(limit * (1 - self.margin))


def hardware_of(spec: HardwareSpec, machine: Machine) -> Hardware:
    """`machine` is the one that trains. Its memory counts where no GPU and no host memory are
    stated.

    Raises:
        SpecError: a GPU of a name that is not known or of less memory than stated; a speed without
            its memory; the machine has a GPU and the spec says nothing of it.
    """
    device = _device(spec)
    gib = spec.gpu_memory_gib or (device.memory_gib if device else None)
    if gib is None and "cuda" in machine.flags:
        raise SpecError(
            "hardware.gpu: this machine has a GPU; say which, or set hardware.gpu_memory_gib, so "
            "that the plan can tell what fits"
        )
    on_cpu = gib is None
    if on_cpu:
        host_bytes = machine.memory_bytes
    else:
        host_bytes = None
    if spec.host_memory_gib:
        host_bytes = int(spec.host_memory_gib * GIB)
    return Hardware(
        gpu=None if on_cpu else (spec.gpu or UNNAMED_GPU).lower(),
        device=device,
        gpu_bytes=None if gib is None else int(gib * GIB),
        host_bytes=host_bytes,
        num_nodes=spec.num_nodes,
        processes_per_node=spec.processes_per_node,
        margin=spec.memory_margin,
        network_gb_s=(spec.network_gbit_s or NETWORK_GBIT_S) / 8,
        num_cores=machine.num_cores,
        flags=machine.flags,
    )


def _device(spec: HardwareSpec) -> Device | None:
    """What is known of the GPU that the spec names or describes."""
    if spec.gpu is None:
        return _described_device(spec)
    name = spec.gpu.lower()
    if spec.tflops is not None:
        raise SpecError(
            "hardware.tflops: only for a GPU without a name in the table; leave it out, or leave "
            "out hardware.gpu"
        )
    if name not in GPUS:
        raise SpecError(_unknown_gpu(spec.gpu))
    device = GPUS[name]
    if spec.gpu_memory_gib is not None and spec.gpu_memory_gib > device.memory_gib:
        raise SpecError(
            f"hardware.gpu_memory_gib: found {spec.gpu_memory_gib:g}, but {spec.gpu} has "
            f"{device.memory_gib:g} GiB. Fix: leave it out, or name another hardware.gpu"
        )
    return device


def _described_device(spec: HardwareSpec) -> Device | None:
    if spec.tflops is None:
        return None
    if spec.gpu_memory_gib is None:
        raise SpecError("hardware.tflops: needs hardware.gpu_memory_gib beside it")
    return other_device(memory_gib=spec.gpu_memory_gib, tflops=spec.tflops)


def _unknown_gpu(gpu: str) -> str:
    by_hand = "set hardware.gpu_memory_gib and hardware.tflops (dense bf16, from its data sheet)"
    name = gpu.lower()
    if any(name.startswith(other) for other in OTHER_MAKERS):
        return (
            f"hardware.gpu: {gpu!r} is not an NVIDIA GPU, and the training image holds CUDA. Fix: "
            f"for a plan alone {by_hand}"
        )
    capability = next((TOO_OLD[each] for each in TOO_OLD if name.startswith(each)), None)
    if capability is not None:
        return (
            f"hardware.gpu: found {gpu!r}, whose compute capability {capability} torch 2.13 has no "
            "kernels for (its wheel for CUDA 13.0 starts at 7.5). Fix: name a GPU of 7.5 or "
            "newer, such as t4 or a10"
        )
    longer = [known for known in GPUS if known.startswith(name)]
    near = longer or difflib.get_close_matches(name, GPUS, n=2, cutoff=0.4)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}? "
    else:
        hint = ""
    return (
        f"hardware.gpu: {gpu!r} is not known; {hint}known are: {', '.join(GPUS)}. Fix: name one of "
        f"them, or {by_hand}"
    )


def machine_memory() -> int | None:
    """Bytes of this machine's memory, or of its container's limit where that is lower; None where
    Linux does not tell."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    total = next(
        int(line.split()[1]) * 1024
        for line in meminfo.read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists():
        text = limit.read_text().strip()
    else:
        text = "max"
    if text.isdigit():
        return min(total, int(text))
    return total
