"""Rows, batch sizes and processes -> the optimizer steps that transformers' Trainer will make, and where it saves."""

import math

from components.shared.errors import SpecError
from components.shared.plan import StepPlan


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


def plan_steps(
    *, num_rows: int, epochs: int, micro_batch: int, grad_accum: int, num_processes: int, warmup_share: float, num_tokens: int
) -> StepPlan:
    """Steps as transformers 5.23 counts them (trainer.py, `set_initial_training_values`) over accelerate's even batches.

    198 rows, one process, batch 1, 5 epochs: 198 steps an epoch, 990 in all, saves after 198, 396, 594, 792, 990.
    """
    batches = math.ceil(num_rows / micro_batch)
    # accelerate deals batches out in turn and fills the last round from the start, so that all have equally many.
    batches_per_process = math.ceil(batches / num_processes)
    steps_per_epoch = math.ceil(batches_per_process / grad_accum)
    total_steps = epochs * steps_per_epoch
    return StepPlan(
        num_rows=num_rows,
        num_processes=num_processes,
        micro_batch=micro_batch,
        grad_accum=grad_accum,
        global_batch=micro_batch * grad_accum * num_processes,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=math.ceil(warmup_share * total_steps),
        save_steps=tuple(epoch * steps_per_epoch for epoch in range(1, epochs + 1)),
        tokens_per_epoch=num_tokens,
    )
