"""`checkpoints.keep` -> which epochs' checkpoints stay in the store: the rule of the plan, which
counts them, and of training, which removes the others."""

from collections.abc import Mapping

from components.shared.spec.results import KeepSpec


def why_epochs_stay(losses: Mapping[int, float | None], keep: KeepSpec) -> dict[int, list[str]]:
    """Epoch -> why its checkpoint stays, for those that do, except for being the newest of all.

    `losses`: of each epoch that has a checkpoint, oldest first, its held-out loss; None where that
    is not known.
    """
    epochs = list(losses)
    if keep == KeepSpec():
        return {epoch: ["all are kept"] for epoch in epochs}
    why: dict[int, list[str]] = {}
    if keep.last is not None:
        for epoch in epochs[-keep.last :]:
            why.setdefault(epoch, []).append(f"last {keep.last}")
    for epoch in _by_loss(losses)[: keep.best or 0]:
        why.setdefault(epoch, []).append(f"best {keep.best}")
    for epoch in epochs:
        if keep.every is not None and epoch % keep.every == 0:
            why.setdefault(epoch, []).append(f"every {keep.every}")
    return why


def _by_loss(losses: Mapping[int, float | None]) -> list[int]:
    """Epochs of a known loss, the lowest first; of equals the oldest."""
    known = {epoch: loss for epoch, loss in losses.items() if loss is not None}
    return sorted(known, key=lambda epoch: known[epoch])


def num_epochs_kept(keep: KeepSpec, num_epochs: int) -> int:
    """Checkpoints in the store at the end of as many epochs, the newest among them; the best ones
    counted as if none of them stayed for another reason."""
    stay = set(why_epochs_stay(dict.fromkeys(range(1, num_epochs + 1)), keep)) | {num_epochs}
    return min(num_epochs, len(stay) + (keep.best or 0))
