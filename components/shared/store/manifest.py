"""A local folder <-> a finished folder of the run; the manifest, written last, is what makes it
finished."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from components.shared.documents.fields import FrozenModel
from components.shared.errors import ObjectDamaged, ObjectMissing, StoreError
from components.shared.store.layout import MANIFEST, manifest_key
from components.shared.store.storage import Store, checked_key

SCHEMA_VERSION: Final = 1
Scalar = str | int | float | bool | None


class FileEntry(FrozenModel):
    """One object of a finished folder, by its key relative to the folder."""

    name: str
    num_bytes: int
    sha256: str


class Manifest(FrozenModel):
    """What a finished folder holds and what it was made from. No time stamp: the same work gives
    the same bytes."""

    schema_version: Literal[1] = SCHEMA_VERSION
    folder: str
    made_by: str
    inputs: dict[str, str] = Field(default_factory=dict)
    """Name -> sha256 of everything that this folder follows from."""
    facts: dict[str, Scalar] = Field(default_factory=dict)
    """Counts and results that readers want without opening a file."""
    files: tuple[FileEntry, ...] = ()

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()

    @property
    def digest(self) -> str:
        """sha256 of the manifest's bytes: it stands for the folder and all that it was made
        from."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def read_manifest(store: Store, folder: str) -> Manifest | None:
    """The manifest of a finished folder, or None where there is none.

    Raises:
        ObjectDamaged: the object is there and is no manifest of this schema version.
    """
    try:
        content = store.read_bytes(manifest_key(folder))
    except ObjectMissing:
        return None
    manifest = parse_manifest(content)
    if manifest is None:
        raise ObjectDamaged(
            f"{store.uri}/{manifest_key(folder)}: is no manifest of schema version {SCHEMA_VERSION}"
        )
    return manifest


def parse_manifest(content: bytes) -> Manifest | None:
    """None when this is no manifest of this schema version."""
    try:
        return Manifest.model_validate_json(content)
    except ValueError:
        return None


def _manifest_there(store: Store, folder: str) -> Manifest | None:
    """None also where it cannot be read."""
    try:
        return read_manifest(store, folder)
    except ObjectDamaged:
        return None


def require_manifest(store: Store, folder: str) -> Manifest:
    """The manifest of a folder that an earlier step must have finished. Raises StoreError naming
    that folder."""
    manifest = read_manifest(store, folder)
    if manifest is None:
        raise StoreError(
            f"{store.uri}/{folder}: not finished (no {MANIFEST}). Fix: finish the run by hagane "
            f"run SPEC or hagane submit SPEC; hagane status {store.uri} shows what is there"
        )
    return manifest


def file_entry(path: Path, name: str) -> FileEntry:
    with path.open("rb") as stream:
        return FileEntry(
            name=name,
            num_bytes=path.stat().st_size,
            sha256=hashlib.file_digest(stream, "sha256").hexdigest(),
        )


def publish_folder(
    store: Store,
    folder: str,
    local: Path,
    *,
    made_by: str,
    inputs: dict[str, str],
    facts: Mapping[str, Scalar],
) -> Manifest:
    """Every file below `local` is under `folder` in the store, then the manifest that lists them.
    An older one goes first.

    One that another start of the run finished meanwhile, from the same inputs, stays as it is, and
    is returned.
    """
    there = _manifest_there(store, folder)
    if inputs and there is not None and (there.made_by, there.inputs) == (made_by, inputs):
        return there
    store.delete(manifest_key(folder))
    entries = tuple(
        file_entry(path, path.relative_to(local).as_posix())
        for path in sorted(local.rglob("*"))
        if path.is_file()
    )
    for entry in entries:
        store.upload(local / entry.name, f"{folder}/{entry.name}")
    manifest = Manifest(
        folder=folder, made_by=made_by, inputs=inputs, facts=dict(facts), files=entries
    )
    store.write_bytes(manifest_key(folder), manifest.to_bytes())
    return manifest


def fetch_folder(
    store: Store, folder: str, local: Path, *, names: tuple[str, ...] | None = None
) -> Manifest:
    """The files of a finished folder (or those in `names`) are below `local`, checked by size and
    sha256.

    Files already there and right are not fetched again; the rest is written beside and moved in.

    Raises:
        StoreError: the folder is not finished. ObjectDamaged: an object is not what the manifest
            says, with its key.
    """
    manifest = require_manifest(store, folder)
    for entry in manifest.files:
        if names is None or entry.name in names:
            fetch_file(store, f"{folder}/{entry.name}", entry, local / entry.name)
    return manifest


def fetch_file(store: Store, key: str, entry: FileEntry, path: Path) -> None:
    """The object of an entry is at `path`, checked; damage on the way is distinguished from damage
    in the store by reading twice.

    Raises:
        ObjectDamaged: the object is not what the entry says, or is not there. StoreError: its name
            is that of no object.
    """
    checked_key(key)  # before the path: a manifest may name anything
    if path.is_file() and file_entry(path, entry.name) == entry:
        return
    beside = path.with_name(f".new-{os.getpid()}-{path.name}")
    try:
        found = _downloaded(store, key, entry, beside)
        if found != entry:
            found = _downloaded(store, key, entry, beside)
        if found != entry:
            raise ObjectDamaged(
                f"{store.uri}/{key}: damaged: found {found.num_bytes} bytes with sha256 "
                f"{found.sha256[:12]}, its manifest says {entry.num_bytes} bytes with "
                f"{entry.sha256[:12]}"
            )
        beside.replace(path)
    except ObjectMissing:
        raise ObjectDamaged(
            f"{store.uri}/{key}: is not there, though its manifest names it"
        ) from None
    finally:
        beside.unlink(missing_ok=True)


def _downloaded(store: Store, key: str, entry: FileEntry, path: Path) -> FileEntry:
    store.download(key, path)
    return file_entry(path, entry.name)
