"""One interface over the two kinds of store: a local folder and an S3 bucket.

A store holds objects under keys with `/` between parts. An object appears whole or not at all; nothing else is
promised, and the rest of hagane is built on that alone.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.shared.errors import ObjectExists, ObjectMissing, StoreDenied, StoreError


@dataclass(frozen=True)
class StoredObject:
    key: str
    num_bytes: int


class Store(Protocol):
    """Objects under one URI. Keys are relative to it. Every method may raise a StoreError."""

    uri: str

    def at(self, prefix: str) -> "Store":
        """The same store, seen from a folder inside it."""
        ...

    def read_bytes(self, key: str) -> bytes:
        """Raises: ObjectMissing."""
        ...

    def write_bytes(self, key: str, content: bytes, *, if_absent: bool = False) -> None:
        """The object is there whole. Raises: ObjectExists when `if_absent` and another writer's content is there."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """A copy of the file is there whole, under its checksum."""
        ...

    def download(self, key: str, path: Path) -> None:
        """The file is at `path`, whole; its folder is made. Raises: ObjectMissing."""
        ...

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, in order of keys."""
        ...

    def delete(self, key: str) -> None:
        """No object is under the key, whether or not one was."""
        ...

    def check(self) -> None:
        """Puts, reads and deletes one small object. Raises: the StoreError that a run would meet hours later."""
        ...


def open_store(uri: str) -> Store:
    """The store of a URI: `s3://bucket/prefix`, or a folder, which need not exist yet.

    Raises:
        StoreError: another scheme, or `s3://` without a bucket. Nothing is asked of the store yet.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return LocalStore(Path(uri))
    if scheme != "s3":
        raise StoreError(f"store: got {uri!r}, must be a folder or s3://bucket/prefix")
    from components.shared.s3_store import S3Store  # boto3 costs 0.3 s that a local store need not pay

    return S3Store.from_uri(uri)


class LocalStore:
    """A folder on this machine. Objects are written beside their place and moved in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def at(self, prefix: str) -> "LocalStore":
        return LocalStore(self.root / prefix)

    def read_bytes(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(f"{self.uri}/{key}: no such object") from None

    def write_bytes(self, key: str, content: bytes, *, if_absent: bool = False) -> None:
        beside = self._beside(key)
        try:
            beside.write_bytes(content)
            if if_absent:
                os.link(beside, self.root / key)
            else:
                beside.rename(self.root / key)
        except FileExistsError:
            raise ObjectExists(f"{self.uri}/{key}: is there already") from None
        except OSError as error:
            raise StoreError(f"store: cannot write {self.uri}/{key}: {error.strerror}") from None
        finally:
            beside.unlink(missing_ok=True)

    def upload(self, path: Path, key: str) -> None:
        beside = self._beside(key)
        try:
            shutil.copyfile(path, beside)
            beside.rename(self.root / key)
        except OSError as error:
            raise StoreError(f"store: cannot write {self.uri}/{key}: {error.strerror}") from None
        finally:
            beside.unlink(missing_ok=True)

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(self.root / key, path)
        except FileNotFoundError:
            raise ObjectMissing(f"{self.uri}/{key}: no such object") from None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for path in sorted(self.root.rglob("*")):
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix) and path.is_file() and not path.name.startswith(".new-"):
                yield StoredObject(key, path.stat().st_size)

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def check(self) -> None:
        key = f".check-{uuid.uuid4().hex}"
        self.write_bytes(key, b"hagane")
        self.delete(key)

    def _beside(self, key: str) -> Path:
        folder = (self.root / key).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise StoreDenied(f"store: cannot write in {folder}: {error.strerror}; choose another folder") from None
        return folder / f".new-{uuid.uuid4().hex}"
