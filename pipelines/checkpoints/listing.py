"""A run's checkpoints/ -> what is there, why it stays, and whether every byte is what its manifest
says."""

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from components.shared.errors import ObjectDamaged
from components.shared.spec.results import KeepSpec
from components.shared.store.checkpoints import Checkpoint, committed_checkpoints, reasons_to_keep
from components.shared.store.layout import CHECKPOINTS, MANIFEST, SET_ASIDE
from components.shared.store.manifest import fetch_file
from components.shared.store.storage import Store


@dataclass(frozen=True)
class NotCommitted:
    """A checkpoint's folder without a manifest that can be read."""

    folder: str
    num_files: int
    num_bytes: int
    found: str
    """An upload under way or broken off, a manifest that was damaged, or one that a resume set
    aside."""


def not_committed(store: Store, committed: list[Checkpoint]) -> list[NotCommitted]:
    """In order of folders."""
    known = {checkpoint.folder for checkpoint in committed}
    sizes: dict[str, dict[str, int]] = {}
    for found in store.list(f"{CHECKPOINTS}/"):
        parts = found.key.split("/")
        folder = "/".join(parts[:2])
        if len(parts) > 2 and folder not in known:
            sizes.setdefault(folder, {})["/".join(parts[2:])] = found.num_bytes
    return [
        NotCommitted(folder, len(files), sum(files.values()), _found(files))
        for folder, files in sizes.items()
    ]


def _found(files: Collection[str]) -> str:
    if MANIFEST in files:
        return "its manifest cannot be read"
    if SET_ASIDE in files:
        return "damaged, set aside by a resume"
    return f"{len(files)} files so far"


def checkpoint_table(store: Store, keep: KeepSpec) -> Table:
    """One line a checkpoint: step, bytes, losses, whether it is committed, and why it stays."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in (
        "checkpoint",
        "step",
        "bytes",
        "loss",
        "held-out loss",
        "committed",
        "kept because",
    ):
        table.add_column(
            heading,
            justify="right" if heading in ("step", "bytes", "loss", "held-out loss") else "left",
        )
    committed = committed_checkpoints(store)
    why = reasons_to_keep(committed, keep)
    for found in committed:
        reason = why.get(found.folder, "nothing: it goes when the next one is committed")
        losses = (_loss(found.facts.loss), _loss(found.facts.held_out_loss))
        table.add_row(
            found.folder.split("/")[1],
            str(found.step),
            f"{found.num_bytes:,}",
            *losses,
            "yes",
            reason,
        )
    for left in not_committed(store, committed):
        table.add_row(
            left.folder.split("/")[1], "", f"{left.num_bytes:,}", "", "", f"no: {left.found}", ""
        )
    return table


def damages(store: Store, checkpoints: list[Checkpoint]) -> Iterator[tuple[str, str | None]]:
    """Reads every file of the checkpoints again; yields its key, and what is wrong with it or
    None."""
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


def _loss(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}"
