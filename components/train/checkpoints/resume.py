"""The newest committed checkpoint -> this process's share of it on this machine, checked; or the
one before, if the spec allows.

A checkpoint of another number of processes is fetched whole, once a machine, and made
world-size-free by DeepSpeed's own tool (universal checkpointing, arXiv 2406.18820).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.utils.serialization.config
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.documents.plan import Plan
from components.shared.errors import ObjectDamaged, ObjectMissing, RunFailed
from components.shared.pickled import refuse_foreign_pickles
from components.shared.spec.results import ResumeSpec
from components.shared.step import Log
from components.shared.store.checkpoints import (
    Checkpoint,
    committed_checkpoints,
    fetch_checkpoint,
    manifest_damage,
    resume_problem,
    unreadable_checkpoints,
)
from components.shared.store.layout import SET_ASIDE, manifest_key
from components.shared.store.manifest import Manifest, parse_manifest
from components.shared.store.storage import Store
from components.train.agreement import Agreement
from components.train.checkpoints.commit import owner

GO_ON = "to go on from the checkpoint before, set resume.on_damage: previous"


@dataclass(frozen=True)
class Resume:
    folder: Path
    """Local folder in the form that transformers' Trainer resumes from."""
    universal: bool
    """Whether the shards are for any number of processes."""


def fetch_resume(store: Store, plan: Plan, spec: ResumeSpec, work: Path, log: Log) -> Resume | None:
    """What to go on from; None to begin. All processes return the same, and must all call this.

    Raises:
        RunFailed: the checkpoint is of another training, asks for code, or cannot be made to fit
            this number of processes.
        ObjectDamaged: a file of it is not what its manifest says, and `resume.on_damage` is fail.
    """
    shutil.rmtree(work, ignore_errors=True)
    _set_unreadable_aside(store, spec, log)
    while True:
        dist.barrier()
        checkpoint = _from_first(
            committed_checkpoints(store)[-1:] if dist.get_rank() == 0 else None
        )
        if not checkpoint:
            return None
        newest: Checkpoint = checkpoint[0]
        problem = resume_problem(newest, plan)
        if problem is not None:
            raise RunFailed(problem)
        folder = work / newest.folder.rsplit("/", 1)[-1]
        damage = _fetch(store, newest, folder)
        damages: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(damages, damage)
        found = next((each for each in damages if each is not None), None)
        if found is None:
            break
        if spec.on_damage == "fail":
            raise ObjectDamaged(f"{found}; {GO_ON}")
        if dist.get_rank() == 0:
            log.warning("damaged", found=found, set_aside=newest.folder)
            set_aside(store, newest.folder, newest.manifest)
    _refuse_foreign_anywhere(folder)
    universal = newest.num_processes != dist.get_world_size() and newest.sharded
    if universal and _first_here():
        make_universal(folder, plan)
    dist.barrier()
    if dist.get_rank() == 0:
        log.info(
            "resumed",
            checkpoint=f"{store.uri}/{newest.folder}",
            step=newest.step,
            made_by_processes=newest.num_processes,
        )
    return Resume(folder, universal)


def set_aside(store: Store, folder: str, seen: Manifest | None) -> None:
    """No reader sees the checkpoint any more, and its place is free; its manifest stays for people
    as damaged.json.

    Unless its manifest is no longer the one that was `seen`, None for one that cannot be read:
    another start of the job has set it aside since, and may have committed a whole one.
    """
    with suppress(ObjectMissing):
        content = store.read_bytes(manifest_key(folder))
        found = parse_manifest(content)
        if found is None or manifest_damage(folder, found):
            readable = None
        else:
            readable = found
        if readable == seen:
            store.write_bytes(f"{folder}/{SET_ASIDE}", content)
            store.delete(manifest_key(folder))


def _set_unreadable_aside(store: Store, spec: ResumeSpec, log: Log) -> None:
    """Raises ObjectDamaged, in all processes, when there are manifests that are none and
    `resume.on_damage` is fail."""
    unreadable = _from_first(unreadable_checkpoints(store) if dist.get_rank() == 0 else None)
    if unreadable and spec.on_damage == "fail":
        raise ObjectDamaged(*(f"{found}; {GO_ON}" for found in unreadable.values()))
    if dist.get_rank() == 0:
        for folder, found in unreadable.items():
            log.warning("damaged", found=found, set_aside=folder)
            set_aside(store, folder, None)


def make_universal(folder: Path, plan: Plan) -> None:
    """Beside the shards in `folder` are the same for any number of processes. Raises RunFailed with
    what DeepSpeed said."""
    shards = folder / (folder / "latest").read_text()
    command = [
        sys.executable,
        "-m",
        "components.train.checkpoints.universal",
        "--input_folder",
        str(shards),
    ]
    command += [
        "--output_folder",
        f"{shards}_universal",
        "--num_extract_workers",
        "1",
        "--num_merge_workers",
        "1",
    ]
    if plan.zero.stage < 3:
        command.append(
            "--inject_missing_state"
        )  # what only Megatron's pipelines would have put there
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
        raise RunFailed(
            f"{folder.name}: cannot be made to fit {dist.get_world_size()} processes: {last}"
        )


def separate_steps(optimizer: torch.optim.Optimizer) -> None:
    """Each parameter has a `step` of its own, where the parameter is.

    DeepSpeed 0.19's loaders of universal checkpoints leave the CPU tensor of the file there
    (base_optimizer.py, stage3.py), which AdamW's fused kernel refuses for parameters on a GPU. At
    stage 3 all parameters share one, so that Adam would count every step once for each group.
    """
    for parameter, state in optimizer.state.items():
        step = state.get("step")
        if isinstance(step, torch.Tensor):
            state["step"] = step.clone().to(parameter.device)


def restore_group_settings(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Each group of parameters has its own weight decay and learning rate again.

    DeepSpeed 0.19's stage-3 loader of universal checkpoints (stage3.py, load_hp_checkpoint_state_…)
    gives all groups the first one's hyperparameters, so that norms and biases would decay, and B
    matrices would learn as A matrices in the first step.
    """
    shards = folder / (folder / "latest_universal").read_text()
    saved = torch.load(shards / "zero" / "optimizer_state.pt", weights_only=True)[
        "optimizer_state_dict"
    ]["param_groups"]
    for group, as_saved in zip(optimizer.param_groups, saved, strict=True):
        group["weight_decay"] = as_saved["weight_decay"]
        group["lr"] = as_saved["lr"]


def map_files(when: bool) -> None:
    """From now on torch.load maps a file, if `when`, where it else reads all of it: DeepSpeed opens
    a process's whole shard, 12 bytes a trained parameter, which the host of a node with GPUs has no
    other use for. Pages of a mapped file are the kernel's to drop."""
    torch.utils.serialization.config.load.mmap = when


def move_out_of_files(optimizer: torch.optim.Optimizer) -> None:
    """No state of the optimizer is a part of a mapped file: offloaded moments would hold the file's
    disk until training ends."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.device.type == "cpu":
                state[name] = value.clone()


class AfterResume(TrainerCallback):
    """When training begins, what DeepSpeed loads wrongly is put right; after the first step the
    checkpoint's files are gone.

    Not before: Trainer reads the generators' states just before that step, and begins with others
    when it finds none.
    """

    def __init__(
        self, resume: Resume, engine: Callable[[], Any], agreement: Agreement, *, zero_stage: int
    ) -> None:
        self._resume = resume
        self._agreement = agreement
        self._zero_stage = zero_stage
        self._engine = engine
        # Not asked of the disk: another process of this node may have removed them by then, and
        # all must wait for each other equally often.
        self._files_are_gone = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        map_files(when=False)
        optimizer = self._engine().basic_optimizer
        move_out_of_files(optimizer)
        if self._resume.universal:
            separate_steps(optimizer)
        if self._resume.universal and self._zero_stage == 3:
            restore_group_settings(optimizer, self._resume.folder)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._files_are_gone:
            return
        self._agreement.wait_for_all()
        if _first_here():
            shutil.rmtree(self._resume.folder)
        self._agreement.wait_for_all()
        self._files_are_gone = True


def _fetch(store: Store, checkpoint: Checkpoint, folder: Path) -> str | None:
    """This process's share is in the folder; or what is wrong with it."""
    if checkpoint.num_processes == dist.get_world_size():
        if _first_here():
            readers = {dist.get_rank(), None}
        else:
            readers = {dist.get_rank()}
    else:
        if _first_here():
            readers = {None, *range(checkpoint.num_processes)}
        else:
            readers = set()
    try:
        fetch_checkpoint(store, checkpoint, folder, wanted=lambda name: owner(name) in readers)
    except ObjectDamaged as error:
        return str(error)
    return None


def _refuse_foreign_anywhere(folder: Path) -> None:
    """Raises RunFailed, in all processes, for a file that one of them fetched and that asks for
    code."""
    refused: str | None = None
    try:
        refuse_foreign_pickles(folder)
    except RunFailed as error:
        refused = str(error)
    refusals: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(refusals, refused)
    found = next((each for each in refusals if each is not None), None)
    if found is not None:
        raise RunFailed(found)


def _first_here() -> bool:
    return os.environ["LOCAL_RANK"] == "0"


def _from_first(value: Any) -> Any:
    """Process 0's value, on all processes."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
