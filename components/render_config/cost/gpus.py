"""GPUs that clouds rent, by name: memory and speed from their makers' data sheets.

Only NVIDIA's: the training image holds CUDA. Another GPU is planned by `hardware.gpu_memory_gib` and `hardware.tflops`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """Dense matrix products in TFLOP/s, memory and links one way in GB/s.

    `memory_gib` is what `nvidia-smi` shows: error correction takes a sixteenth of GDDR memory where it is
    on, as it is when an A10, A40, L4, L40 or L40S is delivered. `half_tflops` is of bf16, or of fp16 where
    there is no bf16, summed in fp32. `fp32_tflops` is of plain fp32, since torch leaves TF32 off.
    `link_gb_s` is what one GPU sends to the others of its node: NVLink's total divided by two, else PCIe.
    """

    memory_gib: float
    half_tflops: float
    fp32_tflops: float
    memory_gb_s: float
    pcie_gb_s: float
    link_gb_s: float
    share: float = 0.45
    """Of `half_tflops`, what LoRA training reaches. For A100 and H100 from published runs
    (benchmarks/published), for others from the GPU of the same generation."""
    bf16: bool = True
    """Whether it computes bf16 (compute capability 8.0); T4 does not."""


AMPERE, HOPPER = 0.55, 0.43
"""Shares of A100 and H100 in benchmarks/published: the A100 is closer to its sheet, as its clock falls less under load."""

GPUS: dict[str, Device] = {
    "t4": Device(15, 65, 8.1, 320, 16, 16, bf16=False),
    "rtx3090": Device(24, 71, 35.6, 936, 32, 32),
    "rtx4090": Device(24, 165, 82.6, 1008, 32, 32),
    "rtx5090": Device(31.8, 210, 104.8, 1792, 64, 64),
    "rtx6000-ada": Device(48, 364, 91.1, 960, 32, 32),
    "rtx-pro-6000": Device(95.6, 503, 125, 1792, 64, 64),
    "a10": Device(22.5, 125, 31.2, 600, 32, 32),
    "a30": Device(24, 165, 10.3, 933, 32, 100, AMPERE),
    "a40": Device(45, 150, 37.4, 696, 32, 56),
    "a6000": Device(48, 155, 38.7, 768, 32, 56),
    "l4": Device(22.5, 121, 30.3, 300, 32, 32),
    "l40": Device(45, 181, 90.5, 864, 32, 32),
    "l40s": Device(45, 362, 91.6, 864, 32, 32),
    "a100-40gb": Device(40, 312, 19.5, 1555, 32, 300, AMPERE),
    "a100-80gb": Device(80, 312, 19.5, 2039, 32, 300, AMPERE),
    "h20": Device(95.6, 148, 44, 4000, 64, 450, HOPPER),
    "h100-pcie": Device(79.6, 756, 51, 2000, 64, 64, HOPPER),
    "h100-nvl": Device(93.6, 835, 60, 3900, 64, 300, HOPPER),
    "h100-80gb": Device(79.6, 989, 67, 3350, 64, 450, HOPPER),
    "h200": Device(140.4, 989, 67, 4800, 64, 450, HOPPER),
    "gh200": Device(95.6, 989, 67, 4000, 450, 450, HOPPER),
    "b200": Device(178.3, 2250, 75, 7680, 64, 900, HOPPER),
    "gb200": Device(185, 2500, 80, 8000, 450, 900, HOPPER),
    "b300": Device(268.6, 2250, 75, 8000, 64, 900, HOPPER),
}
TOO_OLD = {"v100": "7.0", "p100": "6.0", "p40": "6.1"}
"""Start of a name -> compute capability of a GPU for which torch 2.13's wheel for CUDA 13.0 has no
kernels: torch._C._cuda_getArchFlags() is sm_75, 80, 86, 90, 100, 120."""
OTHER_MAKERS = ("mi210", "mi250", "mi300x", "mi325x", "mi355x", "gaudi2", "gaudi3", "tpu")


def other_device(*, memory_gib: float, tflops: float) -> Device:
    """A GPU known by memory and dense bf16 TFLOP/s alone: memory and links as an A10's, the slowest of
    the cards in data centres, and fp32 a quarter, as in its sheet."""
    like = GPUS["a10"]
    return Device(memory_gib, tflops, tflops / 4, like.memory_gb_s, like.pcie_gb_s, like.link_gb_s)
