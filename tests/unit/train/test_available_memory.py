"""Memory that a probe may take, from the files of Linux."""

from pathlib import Path

import pytest

from components.train.step_probe.available_memory import available_memory

MIB = 2**20


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal: 9999 kB\nMemAvailable:    8192 kB\n"}
V2 = {
    "sys/fs/cgroup/memory.max": f"{6 * MIB}\n",
    "sys/fs/cgroup/memory.current": f"{4 * MIB}\n",
}
V1 = {
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{6 * MIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{5 * MIB}\n",
}
FILES = {"sys/fs/cgroup/memory.stat": f"anon {MIB}\ninactive_file {MIB}\n"}


@pytest.mark.parametrize(
    ("files", "mib"),
    [
        (MACHINE, 8),
        (MACHINE | V2, 2),
        (MACHINE | V2 | FILES, 3),
        (MACHINE | V2 | {"sys/fs/cgroup/memory.max": "max\n"}, 8),
        (MACHINE | V2 | {"sys/fs/cgroup/memory.max": f"{99 * MIB}"}, 8),
        (MACHINE | V2 | {"sys/fs/cgroup/memory.current": f"{7 * MIB}"}, 0),
        (MACHINE | V1, 1),
    ],
)
def test_what_a_container_uses_already_is_not_available(
    tmp_path: Path, files: dict[str, str], mib: int
) -> None:
    assert available_memory(written(tmp_path, files)) == mib * MIB


def test_nothing_is_known_where_there_is_no_linux(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
