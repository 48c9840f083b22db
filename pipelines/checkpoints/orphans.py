"""What dead attempts left under checkpoints/, and uploads broken off anywhere in the run -> found,
and on request removed; never a file that a manifest names."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from components.shared.errors import ObjectDamaged, after_a_change
from components.shared.store.checkpoints import Checkpoint
from components.shared.store.layout import CHECKPOINTS, MANIFEST, manifest_key
from components.shared.store.manifest import read_manifest
from components.shared.store.storage import Store, StoredObject, Unfinished


@dataclass(frozen=True)
class Orphans:
    objects: tuple[StoredObject, ...]
    """Files, part lists and set-aside manifests that belong to no committed checkpoint."""
    unfinished: tuple[Unfinished, ...]
    """Uploads that were broken off."""

    @property
    def num_bytes(self) -> int:
        return sum(found.num_bytes for found in self.objects)


def find_orphans(store: Store, *, older_than: timedelta, now: datetime) -> Orphans:
    """What no reader will ever look at, from attempts that wrote nothing for so long: a training at
    work is left alone."""
    attempts: dict[str, list[StoredObject]] = {}
    for found in store.list(f"{CHECKPOINTS}/"):
        parts = found.key.split("/")
        if len(parts) > 2 and parts[2] != MANIFEST:  # checkpoints/epoch-0001/<attempt>/…
            attempts.setdefault("/".join(parts[:3]), []).append(found)
    objects: list[StoredObject] = []
    for attempt, its in attempts.items():
        if max(found.written for found in its) < now - older_than:
            kept = kept_prefixes(store, "/".join(attempt.split("/")[:2]))
            objects += [
                found for found in its if not any(found.key.startswith(start) for start in kept)
            ]
    unfinished = (left for left in store.unfinished() if left.begun < now - older_than)
    return Orphans(tuple(objects), tuple(unfinished))


def kept_prefixes(store: Store, folder: str) -> set[str]:
    """What the keys of a committed checkpoint begin with: its manifest, and the attempt that the
    manifest names. All of its folder where the manifest cannot be read: a resume decides what
    becomes of that."""
    try:
        manifest = read_manifest(store, folder)
    except ObjectDamaged:
        return {f"{folder}/"}
    if manifest is None:
        attempts = set()
    else:
        attempts = Checkpoint(folder, manifest).attempts
    return {manifest_key(folder), *(f"{folder}/{attempt}/" for attempt in attempts)}


def remove_orphans(store: Store, orphans: Orphans) -> Iterator[str]:
    """They are gone; yields each key when it is. What was committed since they were found stays.

    Raises StoreError, with exit code 1 where something was removed before.
    """
    removing = _removed(store, orphans)
    for key in removing:
        yield key
        break
    with after_a_change():
        yield from removing


def _removed(store: Store, orphans: Orphans) -> Iterator[str]:
    kept: dict[str, set[str]] = {}
    for found in orphans.objects:
        folder = "/".join(found.key.split("/")[:2])
        if folder not in kept:
            kept[folder] = kept_prefixes(store, folder)
        if not any(found.key.startswith(start) for start in kept[folder]):
            store.delete(found.key)
            yield found.key
    for left in orphans.unfinished:
        store.discard(left)
        yield left.key
