"""What only a local store meets: folders that cannot be written, writers that die halfway."""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.shared.errors import ObjectExists, StoreDenied, StoreError
from components.shared.store.storage import LocalStore

ENDLESS_WRITER = """
import sys
from pathlib import Path
from components.shared.store.storage import LocalStore
store = LocalStore(Path(sys.argv[1]))
while True:
    for letter in b"ab":
        store.write_bytes("run/object", bytes([letter]) * 3_000_000)
"""


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond this: a write that fails halfway, as on a full disk."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_folder_that_cannot_be_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "deeper", Path("/proc/hagane")):
        with pytest.raises(StoreDenied, match=rf"store: cannot use {root}/.*; choose another folder"):
            LocalStore(root).check()


def test_write_that_fails_halfway_keeps_the_old_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write_bytes("a", b"old")
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    with largest_file(1_000_000):
        for act in (lambda: store.upload(tmp_path / "file", "a"), lambda: store.write_bytes("a", b"x" * 3_000_000)):
            with pytest.raises(StoreError, match="File too large"):
                act()
    assert store.read_bytes("a") == b"old"
    assert [path.name for path in store.root.iterdir()] == ["a"]


def test_killed_writer_leaves_a_whole_object_and_nothing_else_to_see(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    writer = subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, str(tmp_path)])
    while not list(store.list()):
        time.sleep(0.01)
    time.sleep(0.2)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert store.read_bytes("run/object") in (b"a" * 3_000_000, b"b" * 3_000_000)
    assert [found.key for found in store.list()] == ["run/object"]


def test_key_of_a_folder_cannot_be_written(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write_bytes("a/b", b"x")
    with pytest.raises(StoreDenied, match="/a: Is a directory"):
        store.write_bytes("a", b"x")
    with pytest.raises(ObjectExists, match="/a: is there already"):
        store.write_bytes("a", b"x", if_absent=True)
    assert [found.key for found in store.list()] == ["a/b"]
