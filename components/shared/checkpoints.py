"""What readers know of checkpoints: only those whose manifest is there, and only files that are what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.shared.layout import CHECKPOINTS, MANIFEST
from components.shared.manifest import Manifest, fetch_file, require_manifest
from components.shared.storage import Store


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint. Names in its manifest are `<attempt>/<file>`."""

    folder: str
    epoch: int
    step: int
    manifest: Manifest

    @property
    def num_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self.manifest.files)


def committed_checkpoints(store: Store) -> list[Checkpoint]:
    """All committed checkpoints of a run, oldest first. What has no manifest is not there."""
    found: list[Checkpoint] = []
    for stored in store.list(f"{CHECKPOINTS}/epoch-"):
        folder, _, name = stored.key.rpartition("/")
        if name == MANIFEST and folder.count("/") == 1:
            manifest = require_manifest(store, folder)
            found.append(Checkpoint(folder, int(manifest.facts["epoch"] or 0), int(manifest.facts["step"] or 0), manifest))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def fetch_checkpoint(store: Store, folder: str, local: Path, *, wanted: Callable[[str], bool] = lambda _: True) -> Manifest:
    """The checkpoint's files whose name (without the attempt) is wanted are below `local`, checked by size and sha256.

    Raises:
        StoreError: the checkpoint is not committed. ObjectDamaged: a file is not what the manifest says.
    """
    manifest = require_manifest(store, folder)
    for entry in manifest.files:
        _, _, name = entry.name.partition("/")
        if wanted(name):
            fetch_file(store, f"{folder}/{entry.name}", entry, local / name)
    return manifest
