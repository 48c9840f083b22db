"""One interface over the two kinds of store: a local folder and an S3 bucket.

A store holds objects under keys with `/` between parts. An object appears whole or not at all; nothing else is
promised, and the rest of hagane is built on that alone.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from components.shared.errors import ObjectExists, ObjectMissing, StoreDenied, StoreError
from components.shared.printable import shown

COPY_BYTES = 2**20
MOST_KEY_BYTES, MOST_NAME_BYTES = 1024, 255
"""Of an object's key in S3, and of a file's name in Linux."""
WRITING = re.compile(r"\.writing-[0-9a-f]{32}")


@dataclass(frozen=True)
class StoredObject:
    key: str
    num_bytes: int
    written: datetime = field(compare=False, default=datetime.min.replace(tzinfo=UTC))
    """When, by the store's clock."""


@dataclass(frozen=True)
class Unfinished:
    """What a writer that was killed left of an object: an open multipart upload, or a file beside its place. No reader sees it."""

    key: str
    begun: datetime
    handle: str
    """The upload's id, or the file's path."""


class Store(Protocol):
    """Objects under one URI. Keys are relative to it, see `checked_key`. Every method may raise a StoreError.

    No key may be another's folder (`a` and `a/b`): a local store cannot hold both.
    """

    uri: str

    def at(self, prefix: str) -> "Store":
        """The same store, seen from a folder inside it."""
        ...

    def read_bytes(self, key: str) -> bytes:
        """Raises: ObjectMissing."""
        ...

    def write_bytes(self, key: str, content: bytes, *, if_absent: bool = False) -> None:
        """The object is there whole. Raises: ObjectExists when `if_absent` and other content is there.

        Of many writers at once with `if_absent` and different contents exactly one returns; with the same content all do,
        as a writer whose first try got through unnoticed must.
        """
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

    def touch(self, key: str, content: bytes) -> bool:
        """Whether the object has just this content: then it was written now. It is never made again, nor another's content replaced,
        also not in the moment in which it goes or changes."""
        ...

    def delete_own(self, key: str, content: bytes) -> None:
        """The object is gone if it has just this content. Another's stays, also one that is written in the same moment."""
        ...

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """What is being written, or was left half written, under keys that begin with `prefix`."""
        ...

    def discard(self, unfinished: Unfinished) -> None:
        """It is gone, and the writer, if one is still at it, fails."""
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
    from components.shared.store.s3_store import S3Store  # boto3 costs 0.3 s that a local store need not pay

    return S3Store.from_uri(uri)


def checked_key(key: str) -> str:
    """The key itself, if every kind of store can hold it and it stays inside. Raises StoreError."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in key or "\\" in key:  # SeaweedFS takes \ for /
        raise StoreError(f"store: got key {shown(key)}, must be names with one '/' between them, without '\\', none of them '.' or '..'")
    if _num_bytes(key) > MOST_KEY_BYTES or max(map(_num_bytes, parts)) > MOST_NAME_BYTES:
        raise StoreError(f"store: got key {shown(key)}, must have at most {MOST_KEY_BYTES} bytes, and {MOST_NAME_BYTES} between two '/'")
    return key


def _num_bytes(name: str) -> int:
    return len(name.encode("utf-8", "replace"))


class LocalStore:
    """A folder on this machine. An object is written beside its place, forced to the disk, then moved in.

    So a crash at any moment leaves the old object, the new one or none; at most a file `.writing-<hex>` that no one lists.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def at(self, prefix: str) -> "LocalStore":
        return LocalStore(self.root / checked_key(prefix))

    def read_bytes(self, key: str) -> bytes:
        with self._object_opened(key) as stream:
            return stream.read()

    def write_bytes(self, key: str, content: bytes, *, if_absent: bool = False) -> None:
        path = self.root / checked_key(key)
        with self._errors_told(key):
            try:
                with _moved_in(path, replace=not if_absent) as stream:
                    stream.write(content)
            except _TakenError:
                if not path.is_file() or path.read_bytes() != content:
                    raise ObjectExists(f"{self.uri}/{key}: is there already") from None

    def upload(self, path: Path, key: str) -> None:
        with path.open("rb") as source, self._errors_told(key), _moved_in(self.root / checked_key(key)) as stream:
            shutil.copyfileobj(source, stream, COPY_BYTES)

    def download(self, key: str, path: Path) -> None:
        with self._object_opened(key) as source, _moved_in(path) as stream:
            shutil.copyfileobj(source, stream, COPY_BYTES)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        found = {key: info for key, info in self._files(prefix) if not WRITING.fullmatch(key.rpartition("/")[2])}
        for key in sorted(found):
            yield StoredObject(key, found[key].st_size, datetime.fromtimestamp(found[key].st_mtime, UTC))

    def delete(self, key: str) -> None:
        with self._errors_told(key), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            (self.root / checked_key(key)).unlink()

    def touch(self, key: str, content: bytes) -> bool:
        with suppress(ObjectMissing), self._object_opened(key) as stream, self._errors_told(key):
            if stream.read() == content:
                os.utime(stream.fileno())  # of this file, whatever has its name by now
                return os.fstat(stream.fileno()).st_nlink > 0
        return False

    def delete_own(self, key: str, content: bytes) -> None:
        path = self.root / checked_key(key)
        aside = path.with_name(f".writing-{uuid.uuid4().hex}")
        with suppress(ObjectMissing), self._errors_told(key):
            if self.read_bytes(key) != content:
                return
            with suppress(FileNotFoundError):
                path.rename(aside)
                if aside.read_bytes() != content:  # another's since: it gets its name back, unless that is taken again
                    with suppress(FileExistsError):
                        path.hardlink_to(aside)
                aside.unlink()

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        folder = prefix.rpartition("/")[0]
        for key, info in self._files(f"{folder}/" if folder else ""):
            beside = key.rpartition("/")
            if WRITING.fullmatch(beside[2]) and (beside[0] + beside[1]).startswith(prefix):
                yield Unfinished(key, datetime.fromtimestamp(info.st_mtime, UTC), str(self.root / key))

    def discard(self, unfinished: Unfinished) -> None:
        with self._errors_told(unfinished.key):
            Path(unfinished.handle).unlink(missing_ok=True)

    def check(self) -> None:
        key = f".check-{uuid.uuid4().hex}"
        self.write_bytes(key, b"hagane")
        self.read_bytes(key)
        self.delete(key)

    def _files(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        """Every file whose key begins with `prefix`, half written ones included."""
        folder = prefix.rpartition("/")[0]
        with self._errors_told(prefix):
            for parent, _, names in os.walk(self.root / checked_key(folder) if folder else self.root, onerror=_unless_gone):
                for path in (Path(parent, name) for name in names):
                    key = path.relative_to(self.root).as_posix()
                    if key.startswith(prefix):
                        with suppress(FileNotFoundError):  # deleted since
                            yield key, path.stat()

    @contextmanager
    def _errors_told(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            line = f"store: cannot use {self.uri}/{key}: {error.strerror}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(f"{line}; make room or choose another folder") from None
            raise StoreDenied(f"{line}; choose another folder") from None

    def _object_opened(self, key: str) -> BinaryIO:
        with self._errors_told(key):
            try:
                return (self.root / checked_key(key)).open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise ObjectMissing(f"{self.uri}/{key}: no such object") from None


class _TakenError(Exception):
    """Another file has the name."""


@contextmanager
def _moved_in(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """What is written to the stream is the file at `path` after the block, on the disk; nothing is there if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".writing-{uuid.uuid4().hex}")
    try:
        with beside.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            beside.replace(path)
        else:
            try:
                path.hardlink_to(beside)
            except FileExistsError:
                raise _TakenError from None
        _force_names(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _force_names(folder: Path) -> None:
    """The names in the folder are on the disk, as fsync(2) says its files' own fsync does not see to."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unless_gone(error: OSError) -> None:
    """What os.walk does with a folder it cannot read: one that is not there holds nothing, any other stops the walk."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
