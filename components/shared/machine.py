"""What the machine at hand computes fast."""

from pathlib import Path

# x86: AVX512-BF16 (Zen 4, Cooper Lake and later) and AMX-BF16 (Sapphire Rapids and later). Arm:
# FEAT_BF16, `bf16` in Linux's list of features. Without any of these torch 2.13 multiplies bf16
# matrices one number at a time: 0.9 against 63 GFLOP/s in fp32, measured on one core of a Zen 3
# with matrices of 1024 x 576 x 1536.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def machine_flags() -> frozenset[str]:
    """What this machine's processor can do, and `cuda` where an NVIDIA device is; empty where Linux
    does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
    else:
        lines = []
    listed = next(
        (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), ""
    )
    return frozenset(listed.split()) | ({"cuda"} if Path("/dev/nvidia0").exists() else frozenset())


def computes_bf16(flags: frozenset[str]) -> bool:
    """Whether the processor with these flags has instructions for bf16."""
    return bool(BF16_FLAGS & flags)


def user_path(path: str | Path) -> Path:
    """The path with `~` replaced by a home folder; as it is where that user has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
