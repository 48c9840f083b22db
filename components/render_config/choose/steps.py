"""Rows, batch sizes and processes -> the optimizer steps that transformers' Trainer will make, and where it saves."""

import math
from dataclasses import dataclass

from components.shared.documents.plan import StepPlan
from components.shared.errors import SpecError


def grad_accum_steps(*, global_batch: int, micro_batch: int, num_processes: int) -> int:
    """Forward passes per optimizer step.

    Raises:
        SpecError: `global_batch` is no multiple of what one pass of all processes covers; tells the nearest that are.
    """
    at_once = micro_batch * num_processes
    if global_batch % at_once:
        below = global_batch // at_once * at_once
        near = " or ".join(str(n) for n in (below, below + at_once) if n)
        raise SpecError(
            f"training.global_batch: got {global_batch}, must be a multiple of micro_batch {micro_batch} x {num_processes} "
            f"processes = {at_once}; the nearest: {near}"
        )
    return global_batch // at_once


@dataclass(frozen=True)
class Batching:
    """How rows become optimizer steps."""

    num_processes: int
    micro_batch: int
    grad_accum: int
    epochs: int
    drop_last: bool = False
    max_steps: int | None = None

    @property
    def global_batch(self) -> int:
        return self.micro_batch * self.grad_accum * self.num_processes


@dataclass(frozen=True)
class Epoch:
    """What one pass over the rows comes to."""

    steps: int
    rows: int
    """Rows that all processes see: those that fill up a last round count again, those that drop_last leaves out do not."""


def epoch_of(num_rows: int, batching: Batching) -> Epoch:
    """As transformers 5.23 counts steps (trainer.py, `set_initial_training_values`) over the batches that accelerate deals out
    (data_loader.py, `BatchSamplerShard`): in turn, a last round filled from the start so that all have equally many, or left out by
    drop_last. A last, short accumulation counts as a step. One process alone fills nothing up.

    Raises:
        SpecError: drop_last leaves no batch for a process.
    """
    size, n = batching.micro_batch, batching.num_processes
    batches = num_rows // size if batching.drop_last else math.ceil(num_rows / size)
    each = batches // n if batching.drop_last else math.ceil(batches / n)
    if each == 0:
        raise SpecError(
            f"training.drop_last: {num_rows} rows in micro-batches of {size} are {batches}, fewer than the {n} processes, so nothing "
            "would be trained; set drop_last: false"
        )
    rows = num_rows if n == 1 and not batching.drop_last else each * size * n
    return Epoch(steps=math.ceil(each / batching.grad_accum), rows=rows)


def plan_steps(num_rows: int, batching: Batching, *, warmup_share: float, num_tokens: int) -> StepPlan:
    """198 rows, one process, batch 1, 5 epochs: 198 steps an epoch, 990 in all, saves after 198, 396, 594, 792, 990.

    A training that `max_steps` ends in the middle of an epoch saves there too. Raises as `epoch_of`.
    """
    epoch = epoch_of(num_rows, batching)
    total_steps = batching.epochs * epoch.steps if batching.max_steps is None else min(batching.max_steps, batching.epochs * epoch.steps)
    whole_epochs, rest = divmod(total_steps, epoch.steps)
    rows_seen = whole_epochs * epoch.rows + rest * batching.global_batch
    return StepPlan(
        num_rows=num_rows,
        num_processes=batching.num_processes,
        micro_batch=batching.micro_batch,
        grad_accum=batching.grad_accum,
        global_batch=batching.global_batch,
        steps_per_epoch=epoch.steps,
        total_steps=total_steps,
        warmup_steps=math.ceil(warmup_share * total_steps),
        save_steps=tuple(min(number * epoch.steps, total_steps) for number in range(1, whole_epochs + (rest > 0) + 1)),
        tokens_per_epoch=num_tokens,
        tokens_total=round(rows_seen * num_tokens / num_rows),
    )
