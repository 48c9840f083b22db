"""`export.checkpoint` of the spec -> the committed checkpoint that is exported, and what training recorded of its model."""

from pathlib import Path

from components.shared.documents.prompts import PROBE
from components.shared.documents.results import History
from components.shared.errors import StoreError
from components.shared.store.checkpoints import Checkpoint, committed_checkpoints, fetch_checkpoint
from components.shared.store.layout import CHECKPOINTS
from components.shared.store.manifest import Manifest
from components.shared.store.storage import Store

HISTORY = "history.json"


def chosen_checkpoint(store: Store, training: Manifest, wanted: str | int) -> Checkpoint:
    """The last epoch's, the best by held-out loss, or that of an epoch by its number. Raises StoreError where it is not there."""
    by_epoch = {each.epoch: each for each in committed_checkpoints(store) if each.epoch is not None}
    num_epochs = int(training.facts["num_epochs"] or 0)
    there = ", ".join(map(str, by_epoch)) or "none"
    if wanted == "best":
        best = History.model_validate_json(store.read_bytes(f"{CHECKPOINTS}/{HISTORY}")).best_epoch
        if best is None:
            raise StoreError(f"{store.uri}/{CHECKPOINTS}: no epoch has a held-out loss, so none is the best; epochs there: {there}")
        if best.epoch not in by_epoch:
            raise StoreError(
                f"{store.uri}/{CHECKPOINTS}: the best is epoch {best.epoch}, and its checkpoint is not there; epochs there: {there}. "
                "Fix: choose one of them, or train again with checkpoints.keep.best: 1"
            )
        return by_epoch[best.epoch]
    epoch = int(num_epochs if wanted == "last" else wanted)
    if epoch not in by_epoch and wanted == "last":
        raise StoreError(
            f"{store.uri}/{CHECKPOINTS}: training ended with epoch {num_epochs}, the last checkpoint there is of epoch "
            f"{max(by_epoch, default='none')}; restore it, or run the training again under another name"
        )
    if epoch not in by_epoch:
        raise StoreError(
            f"export.checkpoint: got {wanted}, epochs in {store.uri}/{CHECKPOINTS}: {there}; choose one of them, or keep more by "
            "checkpoints.keep"
        )
    return by_epoch[epoch]


def fetch_probe(store: Store, checkpoint: Checkpoint, work: Path, *, training: Manifest) -> Path:
    """The logits that training recorded of this checkpoint's model. Raises StoreError where it recorded none."""
    if checkpoint.epoch == training.facts["num_epochs"]:
        return work / CHECKPOINTS / PROBE
    folder = work / f"probe-of-epoch-{checkpoint.epoch}"
    fetch_checkpoint(store, checkpoint, folder, wanted=(PROBE).__eq__)
    if not (folder / PROBE).is_file():
        raise StoreError(
            f"{store.uri}/{checkpoint.folder}: holds no {PROBE}; an earlier version of hagane wrote it, so its export cannot be verified: "
            "export the last checkpoint"
        )
    return folder / PROBE
