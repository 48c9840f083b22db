"""What programs can still take of this machine's memory."""

from pathlib import Path

V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file")
"""Files below /sys/fs/cgroup with the limit and what is used, and the line of memory.stat beside
them with the cached files in it that the kernel gives back: https://docs.kernel.org/admin-guide/,
cgroup-v2 and cgroup-v1/memory."""


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that programs can still take of this machine's memory, or of what its container's limit
    leaves where that is lower; None where Linux does not say."""
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():
        return None
    free = [1024 * _number_of("MemAvailable:", meminfo)]
    for names in (V2, V1):
        left = _left_in(root / "sys/fs/cgroup", *names)
        if left is not None:
            free.append(left)
    return min(free)


def _left_in(cgroup: Path, limit_name: str, used_name: str, cached_name: str) -> int | None:
    """Bytes below the limit; None where there is none."""
    limit, used = cgroup / limit_name, cgroup / used_name
    if not limit.exists() or not used.exists():
        return None
    text = limit.read_text().strip()
    if not text.isdigit():  # max
        return None
    cached = _number_of(cached_name, limit.with_name("memory.stat"))
    return max(0, int(text) - int(used.read_text()) + cached)


def _number_of(name: str, file: Path) -> int:
    """Of the line `name number …`; 0 where there is none."""
    if not file.exists():
        return 0
    for line in file.read_text().splitlines():
        word, number, *_ = line.split()
        if word == name:
            return int(number)
    return 0
