"""A checkpoint of this process: captured at a step boundary, written beside the training, then
handed to the uploader.

Between two optimizer steps nothing of what a checkpoint holds changes: optimizer state and weights
change in the step alone. So training is held only while references are collected (and LoRA's
matrices gathered); the files are written during the next forward and backward passes, and the next
optimizer step waits in case they are not all written by then. From a GPU they are copied by the
thread that writes, beside training (device_copy.py).
"""

import copy
import io
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deepspeed.checkpoint.constants import LOSS_SCALER
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from safetensors.torch import save_file

from components.shared.documents.checkpoint import CheckpointFacts
from components.shared.documents.plan import Plan
from components.shared.documents.prompts import PROBE
from components.shared.step import Log
from components.train.agreement import Agreement
from components.train.checkpoints.commit import Part
from components.train.checkpoints.device_copy import DeviceCopy, copy_through_buffers, device_of
from components.train.checkpoints.uploader import BackgroundUploads
from components.train.checkpoints.writer import WRITE_ERRORS, LocalWriter
from components.train.loop.trainer import (
    HaganeTrainer,
    epoch_loss,
    held_out_loss_of,
    trainable_parameters,
    whole_weights,
)
from components.train.model.vocabulary import add_vocabulary, vocabulary_tensors

Writes = dict[str, Callable[[Path], None]]
"""File, relative to the checkpoint's folder -> what writes it at a path."""


class CheckpointSaver:
    """Saves of one training process. `attempt` is one start of the job, the same on all
    processes."""

    def __init__(
        self, plan: Plan, *, attempt: str, uploads: BackgroundUploads, agreement: Agreement
    ) -> None:
        self._plan = plan
        self._attempt = attempt
        self._uploads = uploads
        self._agreement = agreement
        self.capture = Capture()
        self._writer = LocalWriter()
        self._problem: str | None = None
        self._probe: dict[str, torch.Tensor] | None = None
        self._waits_before_steps = False

    @property
    def problem(self) -> str | None:
        """Why this process's share of a checkpoint is not in the store, if one is not."""
        return self._problem or self._uploads.problem

    def forget_problem(self) -> None:
        """What went wrong was reported; training goes on."""
        self._problem = self._uploads.problem = None

    def save(self, trainer: HaganeTrainer) -> None:
        """Every process's files are being written, then uploaded; or no process's, when one has no
        room. All must call this."""
        start = time.monotonic()
        step = trainer.state.global_step
        root = Path(str(trainer.args.output_dir), f"checkpoint-{step}")
        self._writer.wait()
        root.parent.mkdir(parents=True, exist_ok=True)
        no_room = self._no_room(root, step)
        if self._agreement.anywhere(no_room is not None) == (True,):
            self._problem = no_room
            return
        self._wait_before_steps(trainer.model_wrapped)
        writes = self.capture(trainer)
        copy_of_gpu = self._copies(trainer.model_wrapped)
        try:
            part = self.part_of(
                trainer,
                root,
                (*writes, *write_small_files(trainer, root, probe=self._taken_probe())),
            )
        except WRITE_ERRORS as error:
            self._failed(root, (), step, error)
            return
        self._writer.begin(
            [partial(_write, root / name, write, copy_of_gpu) for name, write in writes.items()],
            then=lambda: self._uploads.submit(part),
            failed=lambda error: self._failed(root, part.names, step, error),
        )
        self._writer.held_s += time.monotonic() - start

    def take_held_s(self) -> float:
        """Seconds that training waited for saves since this was last asked."""
        held_s, self._writer.held_s = self._writer.held_s, 0.0
        return held_s

    def keep_probe(self, probe: dict[str, torch.Tensor]) -> None:
        """The next checkpoint has it, and no later one."""
        self._probe = probe

    def _taken_probe(self) -> dict[str, torch.Tensor] | None:
        probe, self._probe = self._probe, None
        return probe

    def finish(self, log: Log | None) -> None:
        """All that was saved is in the store, or `problem` says why it is not. That it waits is
        written to `log`."""
        self._writer.wait()
        if log is not None and self._uploads.num_unfinished:
            log.info("waiting_for_uploads", unfinished=self._uploads.num_unfinished)
        self._uploads.finish()

    def _copies(self, engine: Any) -> DeviceCopy | None:
        """Of the tensors that lie on a GPU; None on a CPU."""
        device = device_of(engine)
        if device is None:
            return None
        copy_through_buffers()
        return DeviceCopy(device, self._writer.add_held)

    def _wait_before_steps(self, engine: Any) -> None:
        if not self._waits_before_steps:
            engine.basic_optimizer.register_step_pre_hook(lambda *_: self._writer.wait_written())
            self._waits_before_steps = True

    def _no_room(self, root: Path, step: int) -> str | None:
        needed = self._plan.checkpoints.node_bytes
        if shutil.disk_usage(root.parent).free >= needed:
            return None
        return _not_written(root, step, f"it takes {needed / 1e6:.1f} MB")

    def _failed(self, root: Path, names: tuple[str, ...], step: int, error: BaseException) -> None:
        if isinstance(error, OSError) and error.strerror:
            said = error.strerror
        else:
            said = str(error)
        found = (said.splitlines() or [type(error).__name__])[0]
        self._problem = _not_written(root, step, found)
        for name in names:
            (root / name).unlink(missing_ok=True)

    def part_of(self, trainer: HaganeTrainer, root: Path, names: tuple[str, ...]) -> Part:
        """What the uploader gets to know of these files of a checkpoint at this step."""
        state, steps = trainer.state, self._plan.steps
        epoch = -(-state.global_step // steps.steps_per_epoch)
        ends_epoch = state.global_step in steps.save_steps
        facts = CheckpointFacts(
            epoch=epoch if ends_epoch else None,
            step=state.global_step,
            num_processes=trainer.args.world_size,
            zero_stage=self._plan.zero.stage,
            loss=epoch_loss(state.log_history, steps_per_epoch=steps.steps_per_epoch, epoch=epoch),
            held_out_loss=held_out_loss_of(state.log_history, epoch) if ends_epoch else None,
            steps_per_epoch=steps.steps_per_epoch,
            micro_batch=steps.micro_batch,
        )
        return Part(
            facts=facts,
            attempt=self._attempt,
            process_rank=trainer.args.process_index,
            training=self._plan.training_digest,
            root=str(root),
            names=names,
        )


def _not_written(root: Path, step: int, found: str) -> str:
    free = shutil.disk_usage(root.parent).free
    return (
        f"checkpoint of step {step} is not written: {found}, {free / 1e6:.1f} MB are free in "
        f"{root.parent}; free some or set HAGANE_WORK to another disk"
    )


class Capture:
    """What this process writes of a checkpoint at a step boundary: DeepSpeed's shards, and on
    process 0 all that is whole.

    The tensors are the training's own and must be written before the next optimizer step. Every
    process must call it.
    """

    def __init__(self) -> None:
        self._trainable: dict[str, torch.nn.Parameter] | None = None
        self._unchanging: tuple[str, dict[str, Any]] | None = None

    def __call__(self, trainer: HaganeTrainer) -> Writes:
        scheduler: Any = trainer.lr_scheduler
        lora = hasattr(trainer.model, "peft_config")
        if self._trainable is None:
            if lora:
                self._trainable = trainable_parameters(trainer.model)
            else:
                self._trainable = {}
        if lora:
            weights = whole_weights(self._trainable)
        else:
            weights = {}
        states = self._shards(trainer.model_wrapped, exclude_frozen=lora)
        writes: Writes = {
            name: _torch_file(_with_own_scale(state)) for name, state in states.items()
        }
        if trainer.args.process_index == 0:
            tag = next(iter(states)).split("/")[0]
            writes["latest"] = lambda path: (path.write_text(tag), None)[1]
            writes["scheduler.pt"] = _torch_file(copy.deepcopy(scheduler.state_dict()))
            if lora:
                writes |= _adapter_files(trainer.model, weights)
        return writes

    def _shards(self, engine: Any, *, exclude_frozen: bool) -> dict[str, Any]:
        """What DeepSpeed's save_checkpoint would write. Under ZeRO-3 most of its time goes into
        walking through the model for names and shapes, which are those of the first save: a save
        then holds training 23 ms instead of 90 (135M parameters, LoRA)."""
        if self._unchanging is None:
            states = _as_deepspeed_saves(engine, exclude_frozen=exclude_frozen)
            if engine.zero_optimization_partition_weights():
                self._unchanging = next(
                    (name, state)
                    for name, state in states.items()
                    if name.endswith("_model_states.pt")
                )
            return states
        name, state = self._unchanging
        tag = f"global_step{engine.global_steps}"
        now = {
            "skipped_steps": engine.skipped_steps,
            "global_steps": engine.global_steps,
            "global_samples": engine.global_samples,
        }
        if engine.lr_scheduler is None:
            schedule = None
        else:
            schedule = engine.lr_scheduler.state_dict()
        shard = {
            "optimizer_state_dict": engine.optimizer.state_dict(),
            "ds_config": state["ds_config"],
            "ds_version": state["ds_version"],
        }
        path = Path(engine._get_zero_ckpt_name(str(_Capturing.root), tag))
        return {
            f"{tag}/{name.split('/')[1]}": {**state, **now, "lr_scheduler": schedule},
            path.relative_to(_Capturing.root).as_posix(): shard,
        }


def _with_own_scale(state: dict[str, Any]) -> dict[str, Any]:
    """The state with a copy of fp16's loss scale, which changes before the optimizer step, in whose
    stead there may be none."""
    of_optimizer = state.get("optimizer_state_dict")
    if not isinstance(of_optimizer, dict) or LOSS_SCALER not in of_optimizer:
        return state
    return {
        **state,
        "optimizer_state_dict": {**of_optimizer, LOSS_SCALER: copy.copy(of_optimizer[LOSS_SCALER])},
    }


def _as_deepspeed_saves(engine: Any, *, exclude_frozen: bool) -> dict[str, Any]:
    capturing = _Capturing()
    engine.checkpoint_engine, usual = capturing, engine.checkpoint_engine
    engine._copy_recovery_script = lambda _: (
        None
    )  # a script of DeepSpeed's; export_adapter has it from the library
    try:
        engine.save_checkpoint(
            str(capturing.root), save_latest=False, exclude_frozen_parameters=exclude_frozen
        )
    finally:
        engine.checkpoint_engine = usual
    if exclude_frozen:
        frozen = frozen_names(engine.module)
        capturing.states = {
            name: _without_frozen(state, frozen) for name, state in capturing.states.items()
        }
    return capturing.states


def frozen_names(module: torch.nn.Module) -> frozenset[str]:
    """Names of frozen weights. A head that is tied to the embeddings has a name of its own, which
    DeepSpeed 0.19 does not leave out (engine.py, module_state_dict)."""
    named = module.named_parameters(remove_duplicate=False)
    return frozenset(name for name, weight in named if not weight.requires_grad)


def _without_frozen(state: Any, frozen: frozenset[str]) -> Any:
    """The state without frozen weights, and without the scales of a base in 4 bits, which DeepSpeed
    takes for no part of them: such as `….base_layer.weight.absmax`."""
    if not isinstance(state.get("module"), dict):
        return state
    kept = {
        name: value
        for name, value in state["module"].items()
        if name not in frozen and ".weight." not in name
    }
    return {**state, "module": kept}


class _Capturing(TorchCheckpointEngine):
    """Stands where DeepSpeed writes: what it would write is in `states` instead, by path under
    `root`."""

    root = Path("/checkpoint")

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, Any] = {}

    def save(self, state_dict: Any, path: str) -> None:
        self.states[Path(path).relative_to(self.root).as_posix()] = state_dict

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing: the folder is made where the files are written."""


def _torch_file(state: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with _Stream(path, "wb") as stream:
            try:
                torch.save(state, stream)
            except RuntimeError:
                raise stream.error or RuntimeError(f"torch could not write {path.name}") from None

    return write


class _Stream(io.FileIO):
    """Remembers why it could not be written, of which torch tells only the place in its own
    source."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def _adapter_files(model: Any, weights: dict[str, torch.Tensor]) -> Writes:
    """As PEFT saves an adapter: both files come of one call."""
    vocabulary = vocabulary_tensors(model, weights)

    def write(path: Path) -> None:
        model.save_pretrained(path.parent, state_dict=weights, save_embedding_layers=False)
        add_vocabulary(path, vocabulary)
        (path.parent / "README.md").unlink(
            missing_ok=True
        )  # PEFT's empty model card; export_adapter writes a true one

    return {"adapter_model.safetensors": write, "adapter_config.json": lambda _: None}


def write_small_files(
    trainer: HaganeTrainer, root: Path, *, probe: dict[str, torch.Tensor] | None
) -> list[str]:
    """What changes at once when training goes on is on the disk: the generators' states, and on
    process 0 the losses so far and, at the end of an epoch, the model's logits for the data's
    prompts."""
    root.mkdir(parents=True, exist_ok=True)
    trainer._save_rng_state(str(root))
    rank, num_processes = trainer.args.process_index, trainer.args.world_size
    names = ["rng_state.pth" if num_processes == 1 else f"rng_state_{rank}.pth"]
    if rank == 0:
        trainer.state.save_to_json(str(root / "trainer_state.json"))
        names.append("trainer_state.json")
        if probe is not None:
            save_file(probe, root / PROBE)
            names.append(PROBE)
    return names


def _write(path: Path, write: Callable[[Path], None], copy: DeviceCopy | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if copy is None else copy.used():
        write(path)
