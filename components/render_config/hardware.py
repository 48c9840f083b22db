"""The spec's hardware section (or this machine) -> what the plan may count on: memory and speed of a device, memory of a node."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from components.shared.errors import SpecError
from components.shared.machine import computes_bf16
from components.shared.spec import HardwareSpec

GIB = 2**30
UNNAMED_GPU = "gpu"
"""A GPU of which the spec tells only the memory."""


@dataclass(frozen=True)
class Device:
    """Makers' data sheets: dense matrix products in TFLOP/s, memory and PCIe one way in GB/s. Memory is what `nvidia-smi` tells, in
    GiB: error correction takes a sixteenth of GDDR memory where it is on, as it is when an A10, A40, L4 or L40S comes.

    `half_tflops` is of bf16, or fp16 where there is no bf16, summed in fp32; `fp32_tflops` of plain fp32, since torch leaves TF32 off.
    `link_gb_s` is what one GPU sends to the others of its node: NVLink's total divided by two, else PCIe.
    """

    memory_gib: float
    half_tflops: float
    fp32_tflops: float
    memory_gb_s: float
    pcie_gb_s: float
    link_gb_s: float
    bf16: bool = True
    """Whether it computes bf16 (compute capability 8.0); V100 and T4 do not."""


GPUS: dict[str, Device] = {
    "t4": Device(15, 65, 8.1, 320, 16, 16, bf16=False),
    "v100-16gb": Device(16, 125, 15.7, 900, 16, 150, bf16=False),
    "v100-32gb": Device(32, 125, 15.7, 900, 16, 150, bf16=False),
    "rtx3090": Device(24, 71, 35.6, 936, 32, 32),
    "rtx4090": Device(24, 165, 82.6, 1008, 32, 32),
    "rtx5090": Device(31.8, 210, 104.8, 1792, 64, 64),
    "a10": Device(22.5, 125, 31.2, 600, 32, 32),
    "a40": Device(45, 150, 37.4, 696, 32, 56),
    "a6000": Device(48, 155, 38.7, 768, 32, 56),
    "l4": Device(22.5, 121, 30.3, 300, 32, 32),
    "l40s": Device(45, 362, 91.6, 864, 32, 32),
    "a100-40gb": Device(40, 312, 19.5, 1555, 32, 300),
    "a100-80gb": Device(80, 312, 19.5, 2039, 32, 300),
    "h100-80gb": Device(79.6, 989, 67, 3350, 64, 450),
    "h200": Device(140.4, 989, 67, 4800, 64, 450),
    "b200": Device(178.3, 2250, 75, 7680, 64, 900),
}
# One core of a server processor in torch's plain matrix product, in TFLOP/s, measured: fp32 on a Zen 3 and with AVX-512, bf16 with
# avx512_bf16 and, a number at a time, without such instructions (shared/machine.py).
CORE_FP32, CORE_FP32_AVX512, CORE_BF16, CORE_SLOW_BF16 = 0.063, 0.105, 0.47, 0.0009


def core_tflops(flags: frozenset[str], weight_bytes: int) -> float:
    """Of one core with these flags in fp32 (4 bytes a weight) or bf16 (2). Of a processor that is not known, without flags, what one
    without bf16 instructions reaches in fp32."""
    if weight_bytes == 2 and flags:
        return CORE_BF16 if computes_bf16(flags) else CORE_SLOW_BF16
    return CORE_FP32_AVX512 if "avx512f" in flags else CORE_FP32


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

    @property
    def num_processes(self) -> int:
        return self.num_nodes * self.processes_per_node

    def usable(self, limit: int) -> int:
        """Of so many bytes, those that the plan may fill."""
        return int(limit * (1 - self.margin))


def hardware_of(spec: HardwareSpec, *, machine_bytes: int | None, has_gpu: bool) -> Hardware:
    """`machine_bytes` is this machine's memory, which counts where it trains and no GPU and no host memory are stated.

    Raises:
        SpecError: a GPU of a name that is not known; this machine has a GPU and the spec says nothing of it.
    """
    if spec.gpu is not None and spec.gpu not in GPUS:
        longer = [name for name in GPUS if name.startswith(spec.gpu.lower())]
        near = longer or difflib.get_close_matches(spec.gpu.lower(), GPUS, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise SpecError(
            f"hardware.gpu: {spec.gpu!r} is not known; {hint}known are: {', '.join(GPUS)}; or leave it out and set hardware.gpu_memory_gib"
        )
    device = GPUS[spec.gpu] if spec.gpu else None
    gib = spec.gpu_memory_gib or (device.memory_gib if device else None)
    on_cpu = gib is None and not has_gpu
    if gib is None and has_gpu:
        raise SpecError(
            "hardware.gpu: this machine has a GPU; say which, or set hardware.gpu_memory_gib, so that the plan can tell what fits"
        )
    host = int(spec.host_memory_gib * GIB) if spec.host_memory_gib else machine_bytes if on_cpu else None
    return Hardware(
        gpu=None if on_cpu else spec.gpu or UNNAMED_GPU,
        device=device,
        gpu_bytes=None if gib is None else int(gib * GIB),
        host_bytes=host,
        num_nodes=spec.num_nodes,
        processes_per_node=spec.processes_per_node,
        margin=spec.memory_margin,
    )


def machine_memory() -> int | None:
    """Bytes of this machine's memory, or of its container's limit where that is lower; None where Linux does not tell."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    total = next(int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:"))
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(total, int(text)) if text.isdigit() else total
