"""What readers know of checkpoints: only those whose manifest is there, and only files that are
what it says.

A checkpoint is of the end of an epoch (`checkpoints/epoch-0001`) or of a step between two
(`checkpoints/step-000123`).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from components.shared.documents.checkpoint import CheckpointFacts
from components.shared.documents.plan import Plan
from components.shared.errors import ObjectDamaged
from components.shared.printable import shown
from components.shared.spec.results import KeepSpec
from components.shared.store.keeping import why_epochs_stay
from components.shared.store.layout import (
    CHECKPOINTS,
    MANIFEST,
    checkpoint_folder,
    manifest_key,
    step_checkpoint_folder,
)
from components.shared.store.manifest import Manifest, fetch_file, read_manifest
from components.shared.store.storage import Store


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint. Names in its manifest are `<attempt>/<file>`."""

    folder: str
    manifest: Manifest

    @cached_property
    def facts(self) -> CheckpointFacts:
        return CheckpointFacts.model_validate(self.manifest.facts)

    @property
    def epoch(self) -> int | None:
        """The epoch, counted from 1, that it is the end of; None between epochs."""
        return self.facts.epoch

    @property
    def step(self) -> int:
        return self.facts.step

    @property
    def num_processes(self) -> int:
        return self.facts.num_processes

    @property
    def sharded(self) -> bool:
        """Whether DeepSpeed divided optimizer state among the processes, as it does with ZeRO."""
        return any(entry.name.endswith("_optim_states.pt") for entry in self.manifest.files)

    @property
    def held_out_loss(self) -> float | None:
        """None between epochs, and where it is no number: such a checkpoint is never the best."""
        loss = self.facts.held_out_loss
        if loss is None or math.isnan(loss):
            return None
        return loss

    @property
    def attempts(self) -> set[str]:
        """The start of the job that wrote it, as the names of its files begin."""
        return {entry.name.partition("/")[0] for entry in self.manifest.files}

    @property
    def num_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self.manifest.files)

    @property
    def title(self) -> str:
        """`epoch 2 (step 34)` or `step 40`."""
        if self.epoch is None:
            return f"step {self.step}"
        return f"epoch {self.epoch} (step {self.step})"


def committed_checkpoints(store: Store) -> list[Checkpoint]:
    """All committed checkpoints of a run, oldest first. What has no manifest that can be read is
    not there."""
    found = [
        Checkpoint(folder, read) for folder, read in _manifests(store) if isinstance(read, Manifest)
    ]
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.epoch is not None))


def unreadable_checkpoints(store: Store) -> dict[str, str]:
    """Folder -> what was found, for checkpoints whose manifest is there and is none: they were
    committed, and damaged since."""
    return {
        folder: str(read) for folder, read in _manifests(store) if isinstance(read, ObjectDamaged)
    }


def _manifests(store: Store) -> Iterator[tuple[str, Manifest | ObjectDamaged]]:
    for stored in store.list(f"{CHECKPOINTS}/"):
        folder, _, name = stored.key.rpartition("/")
        if name == MANIFEST and folder.count("/") == 1:
            try:
                manifest = read_manifest(store, folder)
            except ObjectDamaged as error:
                yield folder, error
                continue
            if manifest is None:  # removed since, as a newer one is there
                continue
            reported = manifest_damage(folder, manifest)
            yield (
                folder,
                manifest
                if reported is None
                else ObjectDamaged(f"{store.uri}/{manifest_key(folder)}: {reported}"),
            )


def manifest_damage(folder: str, manifest: Manifest) -> str | None:
    """What keeps a manifest in this folder from being a checkpoint's."""
    missing = [name for name in CheckpointFacts.model_fields if name not in manifest.facts]
    if missing:
        return f"is no checkpoint's manifest: it does not tell {', '.join(missing)}"
    try:
        facts = CheckpointFacts.model_validate(manifest.facts)
    except ValidationError as error:
        wrong = {f"{detail['loc'][0]}: found {shown(detail['input'])}" for detail in error.errors()}
        return f"is no checkpoint's manifest: {', '.join(sorted(wrong))}"
    if folder == folder_of(facts):
        return None
    return (
        f"is not this folder's: it tells of {manifest.folder}, epoch {facts.epoch}, step "
        f"{facts.step}"
    )


def folder_of(facts: CheckpointFacts) -> str:
    """Relative to the run."""
    if facts.epoch is None:
        return step_checkpoint_folder(facts.step)
    return checkpoint_folder(facts.epoch)


def reasons_to_keep(checkpoints: list[Checkpoint], keep: KeepSpec) -> dict[str, str]:
    """Folder -> why it stays, for those that do: by age, held-out loss or number of the epoch; and
    always the newest.

    `checkpoints` is as `committed_checkpoints` gives it. One between epochs stays only while it is
    the newest.
    """
    of_epochs = {each.epoch: each for each in checkpoints if each.epoch is not None}
    losses = {epoch: each.held_out_loss for epoch, each in of_epochs.items()}
    why = why_epochs_stay(losses, keep)
    reasons = {of_epochs[epoch].folder: each for epoch, each in why.items()}
    for newest in checkpoints[-1:]:
        reasons.setdefault(newest.folder, []).append("newest")
    return {folder: ", ".join(each) for folder, each in reasons.items()}


def resume_problem(checkpoint: Checkpoint, plan: Plan) -> str | None:
    """Why training by this plan cannot go on from the checkpoint; None when it can, at any number
    of processes."""
    facts, steps = checkpoint.facts, plan.steps
    made_from, stage = checkpoint.manifest.inputs.get("training", "unknown"), facts.zero_stage
    if made_from != plan.training_digest:
        return (
            f"{checkpoint.folder}: is of another training ({made_from[:12]}, this is "
            f"{plan.training_digest[:12]}: other data, precision, settings or version of hagane); "
            "set another name"
        )
    if stage != plan.zero.stage:
        return (
            f"zero.stage: got {plan.zero.stage}, but {checkpoint.folder} is of stage {stage}; set "
            f"zero.stage: {stage}, or another name"
        )
    if facts.steps_per_epoch != steps.steps_per_epoch:
        return (
            f"training.drop_last: an epoch is {steps.steps_per_epoch} steps with micro_batch "
            f"{steps.micro_batch} on {steps.num_processes} processes, but {checkpoint.folder} is "
            f"of a training with {facts.steps_per_epoch} steps an epoch, with micro_batch "
            f"{facts.micro_batch} on {checkpoint.num_processes}: other rows are left out; "
            "set those again, or another name"
        )
    return None


def fetch_checkpoint(
    store: Store,
    checkpoint: Checkpoint,
    local: Path,
    *,
    wanted: Callable[[str], bool] = lambda _: True,
) -> None:
    """The checkpoint's files whose name (without the attempt) is wanted are below `local`, checked
    by size and sha256.

    Raises:
        ObjectDamaged: a file is not what the manifest says.
    """
    for entry in checkpoint.manifest.files:
        _, _, name = entry.name.partition("/")
        if wanted(name):
            fetch_file(store, f"{checkpoint.folder}/{entry.name}", entry, local / name)
