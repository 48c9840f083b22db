"""The number format of the forward and backward pass, by what the machine that trains computes fast."""

import platform
from pathlib import Path
from typing import Literal

Precision = Literal["bf16", "fp16", "fp32"]
WEIGHT_BYTES: dict[Precision, int] = {"bf16": 2, "fp16": 2, "fp32": 4}

# x86: AVX512-BF16 (Zen 4, Cooper Lake and later) and AMX-BF16 (Sapphire Rapids and later). Arm: FEAT_BF16, `bf16` in
# Linux's list of features. Without any of these torch 2.13 multiplies bf16 matrices one number at a time: 0.9 against
# 63 GFLOP/s in fp32, measured on one core of a Zen 3 with matrices of 1024 x 576 x 1536.
CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def machine_flags() -> frozenset[str]:
    """What this machine's processor can do, and `cuda` where an NVIDIA device is; empty where Linux does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    listed = next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(listed.split()) | ({"cuda"} if Path("/dev/nvidia0").exists() else frozenset())


def choose_precision(
    asked: Literal["auto", "bf16", "fp32"], flags: frozenset[str], *, gpu: str | None = None, gpu_has_bf16: bool = True
) -> tuple[Precision, str]:
    """The format and why. `gpu` is the GPU that the spec names; else this machine counts."""
    if asked != "auto":
        return asked, "as training.precision asks"
    if gpu is not None:
        if gpu_has_bf16:
            return "bf16", f"training.precision is auto and the {gpu} computes bf16"
        return "fp16", f"training.precision is auto and the {gpu} has fp16 and no bf16; the loss is scaled to keep small gradients"
    if "cuda" in flags:
        return "bf16", "training.precision is auto and this machine has a GPU"
    fast = sorted(CPU_FLAGS & flags)
    if fast:
        return "bf16", f"training.precision is auto and this processor computes bf16 ({fast[0]})"
    return "fp32", f"training.precision is auto and this processor ({platform.machine()}) has no bf16 instructions"
