"""A loss or gradient that is no number -> why training stops, with the step and the data rows."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch

SHOWN_ROWS = 8
FIX = "lower training.lr_peak, check the base model and those rows, then run it under another name"


@dataclass
class StepRecord:
    """The micro-batches of one optimizer step in this process, in order."""

    row_numbers: list[torch.Tensor] = field(default_factory=list)
    """Of each micro-batch, [B], counted from 0 in train.parquet."""
    losses: list[torch.Tensor] = field(default_factory=list)
    """Of each micro-batch, on its device: looking at it waits for that device."""
    num_trained_tokens: int | None = None
    """Of the whole step, over all processes; None where the model's own loss does not count
    them."""

    def rows_of_bad_losses(self) -> list[int]:
        """Row numbers of the micro-batches whose loss is NaN or infinite."""
        pairs = zip(self.row_numbers, self.losses, strict=True)
        return [
            row for rows, loss in pairs if not bool(torch.isfinite(loss)) for row in rows.tolist()
        ]

    def rows(self) -> list[int]:
        """All row numbers of the step."""
        return [row for rows in self.row_numbers for row in rows.tolist()]


@dataclass(frozen=True)
class StepFault:
    """What one process found wrong with a step."""

    loss: bool
    """The loss is not finite; else the gradient."""
    rows: tuple[int, ...]


def step_fault(record: StepRecord, engine: Any) -> StepFault | None:
    """None for a sound step, and for one that fp16 skips since its scaled gradient overflowed: the
    next has a smaller scale."""
    bad = record.rows_of_bad_losses()
    if bad:
        return StepFault(loss=True, rows=tuple(bad))
    norm = engine.get_global_grad_norm()
    finite = norm is None or math.isfinite(float(norm))
    if finite or engine.fp16_enabled():
        return None
    return StepFault(loss=False, rows=tuple(record.rows()))


def step_fault_text(step: int, faults: list[StepFault]) -> str:
    """What all processes found; faults of the loss say more than those of the gradient that follow
    from them."""
    of_loss = [fault for fault in faults if fault.loss]
    rows = sorted({row for fault in of_loss or faults for row in fault.rows})
    shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + (
        f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    )
    if of_loss:
        what = "loss"
    else:
        what = "gradient"
    return f"the {what} of step {step} is not finite, in rows {shown} of dataset/train.parquet"


def fault_line(what: str, last_good: str | None) -> str:
    """The one line that a person reads."""
    if last_good is None:
        good = "no checkpoint was stored before it"
    else:
        good = f"the last good checkpoint is {last_good}"
    return f"training: {what}; {good}. Fix: {FIX}"
