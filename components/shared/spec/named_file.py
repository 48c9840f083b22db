"""A file that a spec names: a path of this machine, or an object of a store such as s3://bucket/data/train.jsonl."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.shared.errors import StoreError
from components.shared.machine import user_path
from components.shared.store.storage import open_store


@contextmanager
def local_file(name: str) -> Iterator[Path]:
    """A path by which the file can be read inside the block: its own with `~` replaced, or that of a copy of the object, which then goes.

    Raises:
        StoreError: the object is not there or may not be read. A path of this machine is not looked at.
    """
    if "://" not in name:
        yield user_path(name)
        return
    folder, _, key = name.rpartition("/")
    if not key or folder.endswith("/"):
        raise StoreError(f"{name}: names no object, must be such as s3://bucket/data/train.jsonl")
    with tempfile.TemporaryDirectory() as copies:
        path = Path(copies) / key
        open_store(folder).download(key, path)
        yield path
