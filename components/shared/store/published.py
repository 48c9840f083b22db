"""Published models of a store: versions, each whole and unchanging, and which of them is the
latest.

    <store>/published/<name>/v0001/            export, how to serve it, lineage.json; manifest last
    <store>/published/<name>/claims/v0001.json which export the number is for, if absent
    <store>/published/<name>/moves/000001.json which version became the latest, if absent
    <store>/published/<name>/latest.json       as the newest move, for programs that read it

The newest move says which version is the latest. Of two publishers at once only one writes a move's
number, and the other one looks again: that needs nothing of a store but a write that fails where an
object is there, which folders and S3 have. A publisher that dies leaves files without a manifest,
which nobody reads; the same one, started again, goes on with its own number."""

import re
from dataclasses import dataclass, replace
from datetime import datetime

from components.shared.documents.fields import FrozenModel
from components.shared.errors import (
    ObjectExists,
    ObjectMissing,
    RunFailed,
    SpecError,
    StoreError,
    after_a_change,
)
from components.shared.printable import shown
from components.shared.store.layout import published_folder, version_folder
from components.shared.store.manifest import Manifest, read_manifest
from components.shared.store.storage import Store

MOST_TRIES = 100
_MOVE = re.compile(r"moves/(\d{6})\.json")
_MANIFEST = re.compile(r"published/([a-z][a-z0-9-]*)/v(\d{4,})/manifest\.json")


class Claim(FrozenModel):
    """Who a version's number is for."""

    run: str
    export: str
    """Digest of the export's folder."""


class Move(FrozenModel):
    """One version became the latest."""

    number: int
    """Of the move: 1, 2, 3 …"""
    name: str
    version: int
    folder: str
    """Relative to the store."""
    uri: str
    digest: str
    """Of the version's manifest."""
    why: str
    """`published` or `rolled back`."""


@dataclass(frozen=True)
class Version:
    """A published version: its manifest is there."""

    name: str
    number: int
    manifest: Manifest
    written: datetime
    is_latest: bool
    was_latest: bool
    """Whether any move made it the latest: another publisher may have been faster, or this one
    killed before it."""

    @property
    def label(self) -> str:
        return f"v{self.number}"


def latest(store: Store, name: str) -> Move | None:
    """Of the newest move; None where nothing was ever published under this name."""
    numbers = _move_numbers(store, name)
    if not numbers:
        return None
    return _move(store, name, max(numbers))


def latest_beside(store: Store, name: str, export: str) -> Move | None:
    """Which version the export with this digest is compared with: the latest, or, where that is the
    export's own version, the one that was the latest before. None where there is none."""
    moves = [_move(store, name, number) for number in sorted(_move_numbers(store, name))]
    if not moves or not _is_of(store, moves[-1], export):
        if moves:
            return moves[-1]
        return None
    first = [move.version for move in moves].index(moves[-1].version)
    if first:
        return moves[first - 1]
    return None


def _is_of(store: Store, move: Move, export: str) -> bool:
    manifest = read_manifest(store, move.folder)
    return manifest is not None and manifest.inputs.get("export") == export


def versions(store: Store, name: str | None = None) -> list[Version]:
    """All published versions of a name, or of the store, in the order of names and numbers."""
    found: list[Version] = []
    for stored in store.list(f"{published_folder(name)}/" if name else "published/"):
        key = _MANIFEST.fullmatch(stored.key)
        if key is None or (name is not None and key[1] != name):
            continue
        manifest = read_manifest(store, stored.key.removesuffix("/manifest.json"))
        if manifest is not None:
            found.append(
                Version(
                    key[1], int(key[2]), manifest, stored.written, is_latest=False, was_latest=False
                )
            )
    moved_to = {each: _moved_to(store, each) for each in {version.name for version in found}}
    marked = (_marked(version, moved_to[version.name]) for version in found)
    return sorted(marked, key=lambda version: (version.name, version.number))


def claim_version(store: Store, name: str, claim: Claim) -> int:
    """The number of this export's version: the same whenever it is asked for, and nobody else's."""
    number = 0
    while True:
        number += 1
        try:
            store.write_bytes(
                _claim_key(name, number), claim.model_dump_json().encode(), if_absent=True
            )
        except ObjectExists:
            continue
        return number


def make_latest(store: Store, name: str, version: int, *, why: str, instead_of: int | None) -> Move:
    """The version, which must be finished, is the latest. `instead_of`: number of the move that it
    was decided by, 0 for none.

    Raises:
        StoreError: the version is not finished.
        RunFailed: another version became the latest since the move `instead_of`; nothing is
            changed.
    """
    folder = version_folder(name, version)
    manifest = read_manifest(store, folder)
    if manifest is None:
        raise StoreError(
            f"{store.uri}/{folder}: not finished (no manifest.json), so it cannot be the latest"
        )
    uri = f"{store.uri.rstrip('/')}/{folder}"
    for _ in range(MOST_TRIES):
        newest = refuse_moved(store, name, instead_of)
        move = Move(
            number=newest + 1,
            name=name,
            version=version,
            folder=folder,
            uri=uri,
            digest=manifest.digest,
            why=why,
        )
        try:
            store.write_bytes(
                _move_key(name, move.number),
                move.model_dump_json(indent=1).encode(),
                if_absent=True,
            )
        except ObjectExists:
            continue
        with after_a_change():
            write_latest(store, name)
        return move
    raise StoreError(
        f"{store.uri}/{published_folder(name)}: too many publishers at once; run the same command "
        "again"
    )


def refuse_moved(store: Store, name: str, instead_of: int | None) -> int:
    """The number of the newest move, 0 for none. Raises RunFailed where it is not `instead_of`;
    None takes any."""
    newest = max(_move_numbers(store, name), default=0)
    if instead_of is not None and newest != instead_of:
        raise RunFailed(
            f"{store.uri}/{published_folder(name)}: another version became the latest while this "
            "one was compared with the one before. Fix: run the same command again, which "
            "compares it with that one"
        )
    return newest


def write_latest(store: Store, name: str) -> None:
    """latest.json is what the newest move says, also where a publisher died between the two, or
    another one was faster."""
    for _ in range(MOST_TRIES):
        newest = latest(store, name)
        if newest is None:
            return
        content = newest.model_dump_json(indent=1).encode() + b"\n"
        if _read(store, latest_key(name)) != content:
            store.write_bytes(latest_key(name), content)
        if latest(store, name) == newest:
            return


def roll_back(store: Store, name: str, version: int | None) -> Move:
    """An earlier version is the latest again: `version`, or else the one with the number before the
    latest one's. One that never was the latest is not chosen: nothing says that it was better than
    the one before.

    Raises:
        SpecError: there is no such name or version, none before, or it never was the latest.
        StoreError: files of the version are not there.
    """
    newest = latest(store, name)
    if newest is None:
        known = ", ".join(sorted({each.name for each in versions(store)})) or "nothing"
        raise SpecError(
            f"{shown(name)}: nothing is published under this name in {store.uri}; published there: "
            f"{known}"
        )
    all_finished = versions(store, name)
    finished = {each.number: each for each in all_finished if each.was_latest}
    there = ", ".join(
        each.label if each.was_latest else f"{each.label} (never the latest)"
        for each in all_finished
    )
    if version is None:
        chosen = max((number for number in finished if number < newest.version), default=0)
    else:
        chosen = version
    if chosen == newest.version:
        raise SpecError(f"{name}: v{chosen} is the latest already; versions: {there}")
    if chosen not in finished:
        if version is None:
            wanted = f"version before v{newest.version}"
        else:
            wanted = f"v{version}"
        known = any(each.number == chosen for each in all_finished)
        if known:
            problem = f"{wanted} never was the latest"
        else:
            problem = f"there is no {wanted}"
        raise SpecError(f"{name}: {problem}; versions: {there}")
    absent = absent_files(store, finished[chosen])
    if absent:
        fix = "is not there as its manifest says; restore it, or choose another version"
        raise StoreError(*(f"{store.uri}/{key}: {fix}" for key in absent))
    return make_latest(store, name, chosen, why="rolled back", instead_of=newest.number)


def absent_files(store: Store, version: Version) -> list[str]:
    """Keys of files that are gone, or of another size than the manifest says."""
    folder = version_folder(version.name, version.number)
    sizes = {stored.key: stored.num_bytes for stored in store.list(f"{folder}/")}
    return [
        key
        for each in version.manifest.files
        if sizes.get(key := f"{folder}/{each.name}") != each.num_bytes
    ]


def was_latest(store: Store, name: str, version: int) -> bool:
    """Whether any move was to this version."""
    return version in _moved_to(store, name)


def _moved_to(store: Store, name: str) -> list[int]:
    """The version of each move, oldest first."""
    return [_move(store, name, number).version for number in sorted(_move_numbers(store, name))]


def _marked(version: Version, moved_to: list[int]) -> Version:
    return replace(
        version, is_latest=moved_to[-1:] == [version.number], was_latest=version.number in moved_to
    )


def _move_numbers(store: Store, name: str) -> list[int]:
    folder = f"{published_folder(name)}/"
    keys = (stored.key.removeprefix(folder) for stored in store.list(f"{folder}moves/"))
    return [int(found[1]) for key in keys if (found := _MOVE.fullmatch(key))]


def _move(store: Store, name: str, number: int) -> Move:
    try:
        return Move.model_validate_json(store.read_bytes(_move_key(name, number)))
    except ValueError:
        raise StoreError(
            f"{store.uri}/{_move_key(name, number)}: is damaged; restore it, or delete it: the one "
            "before counts then"
        ) from None


def _read(store: Store, key: str) -> bytes | None:
    try:
        return store.read_bytes(key)
    except ObjectMissing:
        return None


def latest_key(name: str) -> str:
    return f"{published_folder(name)}/latest.json"


def _move_key(name: str, number: int) -> str:
    return f"{published_folder(name)}/moves/{number:06d}.json"


def _claim_key(name: str, number: int) -> str:
    return f"{published_folder(name)}/claims/v{number:04d}.json"
