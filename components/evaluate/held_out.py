"""Held-out rows -> a model's loss per trained token.

Shapes: L tokens of a conversation, V tokens of the vocabulary. One conversation at a time: memory for its logits, L x V x 4 bytes, is
the peak.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch.nn.functional import cross_entropy

from components.shared.results import Measure

NOT_TRAINED = -100


@dataclass(frozen=True)
class PackedRow:
    """One row of held_out.parquet. [3, 2] in `lengths` are two conversations in five tokens."""

    input_ids: list[int]
    labels: list[int]
    lengths: list[int]


def read_rows(path: Path) -> list[PackedRow]:
    return [PackedRow(**row) for row in pq.read_table(path, columns=["input_ids", "labels", "lengths"]).to_pylist()]


def measure(model: Any, rows: list[PackedRow], *, on_row: Callable[[], None]) -> Measure:
    """Mean loss over all trained tokens of all rows, each token weighing the same. `on_row` is called after each row."""
    total, num_tokens = 0.0, 0
    for loss_sum, count in (row_loss(model, row) for row in rows):
        total, num_tokens = total + loss_sum, num_tokens + count
        on_row()
    return Measure(loss=total / num_tokens, perplexity=perplexity(total / num_tokens), num_tokens=num_tokens)


@torch.inference_mode()
def row_loss(model: Any, row: PackedRow) -> tuple[float, int]:
    """(sum of losses in nats, number of trained tokens) of a row. Each of its conversations is a pass of its own."""
    loss_sum, num_tokens = 0.0, 0
    start = 0
    for length in row.lengths:
        part = slice(start, start + length)
        logits_LV = model(input_ids=torch.tensor([row.input_ids[part]], device=model.device), use_cache=False).logits[0]
        targets_L = torch.tensor(row.labels[part], device=model.device)[1:]
        loss_sum += float(cross_entropy(logits_LV[:-1].float(), targets_L, ignore_index=NOT_TRAINED, reduction="sum"))
        num_tokens += int((targets_L != NOT_TRAINED).sum())
        start += length
    return loss_sum, num_tokens


def perplexity(loss: float) -> float:
    """e to the loss; infinite where that is beyond a float."""
    return math.exp(loss) if loss < 700 else math.inf
