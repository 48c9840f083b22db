"""A run's checkpoints/ -> what is there, why it stays, and whether every byte is what its manifest says."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from components.shared.checkpoints import Checkpoint, committed_checkpoints, reasons_to_keep
from components.shared.errors import ObjectDamaged
from components.shared.layout import CHECKPOINTS, SET_ASIDE
from components.shared.manifest import fetch_file
from components.shared.spec import KeepSpec
from components.shared.storage import Store


@dataclass(frozen=True)
class NotCommitted:
    """A checkpoint's folder without a manifest: an upload under way, one that was broken off, or one that a resume set aside."""

    folder: str
    num_files: int
    num_bytes: int
    set_aside: bool


def not_committed(store: Store, committed: list[Checkpoint]) -> list[NotCommitted]:
    """In order of folders."""
    known = {checkpoint.folder for checkpoint in committed}
    sizes: dict[str, dict[str, int]] = {}
    for found in store.list(f"{CHECKPOINTS}/"):
        parts = found.key.split("/")
        folder = "/".join(parts[:2])
        if len(parts) > 2 and folder not in known:
            sizes.setdefault(folder, {})["/".join(parts[2:])] = found.num_bytes
    return [NotCommitted(folder, len(files), sum(files.values()), SET_ASIDE in files) for folder, files in sizes.items()]


def checkpoint_table(store: Store, keep: KeepSpec) -> Table:
    """One line a checkpoint: step, bytes, losses, whether it is committed, and why it stays."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("checkpoint", "step", "bytes", "loss", "held-out loss", "committed", "kept because"):
        table.add_column(heading, justify="right" if heading in ("step", "bytes", "loss", "held-out loss") else "left")
    committed = committed_checkpoints(store)
    why = reasons_to_keep(committed, keep)
    for found in committed:
        facts = found.manifest.facts
        reason = why.get(found.folder, "nothing: it goes when the next one is committed")
        losses = (_loss(facts["loss"]), _loss(facts["held_out_loss"]))
        table.add_row(found.folder.split("/")[1], str(found.step), f"{found.num_bytes:,}", *losses, "yes", reason)
    for left in not_committed(store, committed):
        state = "no: damaged, set aside by a resume" if left.set_aside else f"no: {left.num_files} files so far"
        table.add_row(left.folder.split("/")[1], "", f"{left.num_bytes:,}", "", "", state, "")
    return table


def damages(store: Store, checkpoints: list[Checkpoint]) -> Iterator[tuple[str, str | None]]:
    """Reads every file of the checkpoints again; yields its key, and what is wrong with it or None."""
    with tempfile.TemporaryDirectory(prefix="hagane-verify-") as folder:
        for checkpoint in checkpoints:
            for entry in checkpoint.manifest.files:
                key, local = f"{checkpoint.folder}/{entry.name}", Path(folder, "file")
                try:
                    fetch_file(store, key, entry, local)
                except ObjectDamaged as error:
                    yield key, str(error)
                else:
                    local.unlink()
                    yield key, None


def _loss(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""
