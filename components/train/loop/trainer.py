"""transformers' Trainer with three things of hagane's own: how a checkpoint is saved, held-out
loss, progress.

Saving through Trainer as it is would gather the whole frozen base for every LoRA checkpoint (3.8 s
against 0.1 s for 135M parameters) and hold training until all is written.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import deepspeed
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from components.shared.step import Log
from components.train.agreement import Agreement
from components.train.loop.finite import StepRecord
from components.train.loop.parts import PartTimes
from components.train.loop.rows import (
    NOT_TRAINED,
    Batch,
    PackedRows,
    Row,
    collate,
    inputs_of,
    padded_length,
)
from components.train.model.optimizer import (
    decayed_parameters,
    raise_rate_of_b,
    warm_up_from_the_first_step,
)
from components.train.model.output_layer import mean_loss
from components.train.model.own_layers import NO_OWN_LAYERS, OwnLayers

LogHistory = list[dict[str, Any]]


class NumberedRows(Dataset[tuple[int, Row]]):
    """Rows with their numbers, counted from 0."""

    def __init__(self, rows: PackedRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[int, Row]:
        return index, self._rows[index]


def collate_numbered(
    numbered: list[tuple[int, Row]], *, longest: int | None = None
) -> dict[str, Any]:
    """A batch as `collate` makes it, and `row_numbers` [B]. With `longest`, the tokens of the
    longest row, it is padded for a GPU."""
    rows = [row for _, row in numbered]
    if longest is None:
        num_tokens = None
    else:
        num_tokens = padded_length(rows, longest=longest)
    return {
        **collate(rows, num_tokens=num_tokens),
        "row_numbers": torch.tensor([number for number, _ in numbered]),
    }


class HaganeTrainer(Trainer):
    """`model` trained on packed rows. What saving a checkpoint means is `save`'s to say, which is
    set before training."""

    save: Callable[[], None]

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        rows: PackedRows,
        *,
        own: OwnLayers = NO_OWN_LAYERS,
        plus_ratio: float = 1.0,
    ) -> None:
        """`plus_ratio`: see `raise_rate_of_b`."""
        collator: Any = partial(
            collate_numbered, longest=rows.longest if torch.cuda.is_available() else None
        )
        super().__init__(
            model=model,
            args=args,
            train_dataset=NumberedRows(rows),
            data_collator=collator,
            compute_loss_func=None if own.output_layer is None else mean_loss,
        )
        self.own = own
        self._plus_ratio = plus_ratio
        self.remove_callback(PrinterCallback)
        self.record = StepRecord()
        """Of the optimizer step in progress; until the next begins, of the last one."""
        self._step_begins = True
        self.times = PartTimes(on_gpu=torch.cuda.is_available())

    def get_batch_samples(self, *arguments: Any, **how: Any) -> Any:
        with self.times.of("data"):
            return super().get_batch_samples(*arguments, **how)

    def compute_loss(self, *arguments: Any, **how: Any) -> Any:
        with self.times.of("forward"):
            return super().compute_loss(*arguments, **how)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        return decayed_parameters(model)

    def create_optimizer(self, *arguments: Any, **how: Any) -> torch.optim.Optimizer:
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*arguments, **how)
        if is_new and self._plus_ratio != 1:
            assert self.model is not None
            raise_rate_of_b(optimizer, self.model, self._plus_ratio)
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> Any:
        if self.lr_scheduler is None:
            scheduler: Any = super().create_scheduler(num_training_steps, optimizer)
            self.lr_scheduler = warm_up_from_the_first_step(
                scheduler, self.args.get_warmup_steps(num_training_steps)
            )
        return self.lr_scheduler

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        if self._step_begins:
            self.record = StepRecord(
                num_trained_tokens=None if num_items_in_batch is None else int(num_items_in_batch)
            )
        self.record.row_numbers.append(inputs.pop("row_numbers"))
        with self.own.losses_of(inputs, to_train=True):
            loss = super().training_step(model, inputs, num_items_in_batch)
        self.record.losses.append(loss.detach())
        self._step_begins = self.accelerator.sync_gradients
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.record.num_trained_tokens is not None:
            logs["trained_tokens"] = self.record.num_trained_tokens
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.save()

    def _run_epoch(self, *arguments: Any, **how: Any) -> None:
        """Nothing when the last step is made already: Trainer asks only after a step, and would
        make one too many when it resumes from a checkpoint that `max_steps` ended within an
        epoch."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **how)


def trainable_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """By name. Which they are does not change during training; to find them takes a walk through
    the model."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def whole_weights(parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """Their values, on the CPU, on every process, whatever ZeRO divides. Every process must call
    this."""
    with deepspeed.zero.GatheredParameters(list(parameters.values()), modifier_rank=None):
        return {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """No dropout and no gradients inside. `model` is DeepSpeed's engine."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()
        # ZeRO-3 has begun to fetch what a backward pass would use next; a parameter on its way
        # cannot be saved.
        model.empty_partition_cache()


def held_out_loss(
    model: Any,
    own: OwnLayers,
    rows: PackedRows,
    agreement: Agreement,
    *,
    process_rank: int,
    num_processes: int,
) -> float:
    """Mean loss per trained token over all rows, in nats. Every process makes equally many passes,
    as ZeRO-3 needs."""
    total = torch.zeros(2, dtype=torch.float64)
    with evaluating(model):
        for start in range(0, len(rows), num_processes):
            index = start + process_rank
            batch = collate([rows[index if index < len(rows) else 0]])
            loss_sum, num_tokens = _loss_sum(model, own, batch)
            if index < len(rows):
                total += torch.tensor([loss_sum, num_tokens], dtype=torch.float64)
    loss_sum, num_tokens = agreement.sum(total)
    return float(loss_sum / num_tokens)


def _loss_sum(model: Any, own: OwnLayers, batch: Batch) -> tuple[float, int]:
    device = next(model.parameters()).device
    with own.losses_of(batch):
        logits_BTV = model(**inputs_of(batch, device), use_cache=False).logits
    if own.output_layer is not None:
        return float(logits_BTV), int((batch["labels"][:, 1:] != NOT_TRAINED).sum())
    # Where the logits are: one row's would take 8 bytes a token and word of the vocabulary of the
    # host, which nobody planned for.
    targets = batch["labels"][:, 1:].flatten().to(device)
    loss_sum = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(), targets, ignore_index=NOT_TRAINED, reduction="sum"
    )
    return float(loss_sum), int((targets != NOT_TRAINED).sum())


class HeldOutLoss(TrainerCallback):
    """Appends `held_out_loss` to the log history at the start and at the end of each epoch, before
    its checkpoint is saved.

    Of one that is not finite nothing is appended or saved: `stop` is called with what it is, and
    raises.
    """

    def __init__(
        self,
        measure: Callable[[], float],
        log: Log,
        *,
        stop: Callable[[str, TrainerState], NoReturn],
    ) -> None:
        self._measure = measure
        self._stop = stop
        self._log = log

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == 0:
            self._append(state, epoch=0)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._append(
            state, epoch=math.ceil(round(state.epoch or 0, 6))
        )  # max_steps may end training within an epoch

    def _append(self, state: TrainerState, *, epoch: int) -> None:
        start = time.monotonic()
        loss = self._measure()
        seconds = round(time.monotonic() - start, 3)
        if not math.isfinite(loss):
            if epoch:
                when = f"after epoch {epoch} (step {state.global_step})"
            else:
                when = "before training"
            self._stop(f"the held-out loss {when} is {loss}", state)
        state.log_history.append(
            {
                "held_out_loss": loss,
                "held_out_epoch": epoch,
                "step": state.global_step,
                "held_out_s": seconds,
            }
        )
        if state.is_world_process_zero:
            self._log.info("held_out", epoch=epoch, step=state.global_step, loss=round(loss, 4))


class Progress(TrainerCallback):
    """One event a step on process 0, with the time left; and the seconds of training so far in the
    log history."""

    def __init__(self, tokens_per_step: float, log: Log) -> None:
        self._tokens_per_step = tokens_per_step
        self._log = log
        self._start = 0.0
        self._first_step = 0
        self._seconds_before = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._start = time.monotonic()
        self._first_step = state.global_step
        self._seconds_before = seconds_trained(state.log_history)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        seconds = time.monotonic() - self._start
        state.log_history[-1]["seconds"] = round(self._seconds_before + seconds, 3)
        num_done = state.global_step - self._first_step
        if state.is_world_process_zero and num_done:
            self._log.info(
                "progress",
                done=state.global_step,
                total=state.max_steps,
                unit="steps",
                epoch=round(state.epoch or 0, 2),
                loss=round(float(logs["loss"]), 4),
                lr=float(f"{logs['learning_rate']:.3g}"),
                tokens_s=round(self._tokens_per_step * num_done / seconds),
                left_s=round(seconds / num_done * (state.max_steps - state.global_step), 1),
            )


def seconds_trained(history: LogHistory) -> float:
    """Seconds of training up to the last logged step, interrupted tries that were resumed from
    included."""
    return max((float(entry["seconds"]) for entry in history if "seconds" in entry), default=0.0)


def step_seconds(history: LogHistory) -> list[float | None]:
    """Of each step with a loss, from the end of the one before; None where that one was not made in
    the same start."""
    steps = [entry for entry in history if "loss" in entry]
    begun = {entry["start"]["step"] for entry in history if "start" in entry}
    ends = {entry["step"]: float(entry["seconds"]) for entry in steps if "seconds" in entry}
    known = [
        step in ends and step - 1 in ends and step - 1 not in begun
        for step in (entry["step"] for entry in steps)
    ]
    return [
        round(ends[entry["step"]] - ends[entry["step"] - 1], 4) if is_known else None
        for entry, is_known in zip(steps, known, strict=True)
    ]


def seconds_per_step(history: LogHistory) -> float | None:
    """Median time from one step's end to the next one's, over steps of one start: saves and
    held-out loss move it little."""
    ends = {entry["step"]: float(entry["seconds"]) for entry in history if "seconds" in entry}
    took = [ends[step] - ends[step - 1] for step in ends if step - 1 in ends]
    if took:
        return round(statistics.median(took), 4)
    return None


def epoch_loss(history: LogHistory, *, steps_per_epoch: int, epoch: int) -> float:
    """Mean loss per trained token over those steps of an epoch, counted from 1, that were made;
    each step's by the weights before it.

    Where a step's number of tokens is not known (a checkpoint of hagane 0.1), all its epoch's steps
    count alike.
    """
    first = (epoch - 1) * steps_per_epoch
    steps = [
        entry
        for entry in history
        if "loss" in entry and first < entry["step"] <= first + steps_per_epoch
    ]
    known = all("trained_tokens" in entry for entry in steps)
    weights = [entry["trained_tokens"] if known else 1 for entry in steps]
    return sum(weight * entry["loss"] for weight, entry in zip(weights, steps, strict=True)) / sum(
        weights
    )


def held_out_loss_of(history: LogHistory, epoch: int) -> float | None:
    """What `HeldOutLoss` measured at the end of an epoch, 0 being before training; None where
    nothing is held out."""
    return next(
        (entry["held_out_loss"] for entry in history if entry.get("held_out_epoch") == epoch), None
    )
