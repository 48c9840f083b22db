"""Held-out rows -> what a model gives for each conversation: the loss of its trained tokens, and
how many it would have chosen.

Shapes: L tokens of a conversation, V tokens of the vocabulary. One conversation at a time: memory
for its logits, L x V x 4 bytes, is the peak.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch.nn.functional import cross_entropy

NOT_TRAINED = -100


@dataclass(frozen=True)
class PackedRow:
    """One row of held_out.parquet. [3, 2] in `lengths` are two conversations in five tokens."""

    input_ids: list[int]
    labels: list[int]
    lengths: list[int]


def read_rows(path: Path) -> list[PackedRow]:
    return [
        PackedRow(**row)
        for row in pq.read_table(path, columns=["input_ids", "labels", "lengths"]).to_pylist()
    ]


@dataclass(frozen=True)
class Counted:
    """What a model gives for one conversation."""

    loss_sum: float
    """Nats, over its trained tokens."""
    num_right: int
    """Trained tokens that are the model's first choice."""
    num_tokens: int
    """Trained tokens, at least one."""


def count(model: Any, rows: list[PackedRow], *, on_row: Callable[[], None]) -> list[Counted]:
    """Of each conversation of all rows, in their order, that has a trained token. `on_row` is
    called after each row."""
    counted: list[Counted] = []
    for row in rows:
        counted += count_row(model, row)
        on_row()
    return counted


@torch.inference_mode()
def count_row(model: Any, row: PackedRow) -> list[Counted]:
    """Of each conversation of the row that has a trained token. Each is a pass of its own."""
    counted: list[Counted] = []
    start = 0
    for length in row.lengths:
        part = slice(start, start + length)
        start += length
        targets_L = torch.tensor(row.labels[part], device=model.device)[1:]
        num_tokens = int((targets_L != NOT_TRAINED).sum())
        if num_tokens:
            logits_LV = model(
                input_ids=torch.tensor([row.input_ids[part]], device=model.device), use_cache=False
            ).logits[0, :-1]
            losses_L = cross_entropy(
                logits_LV.float(), targets_L, ignore_index=NOT_TRAINED, reduction="none"
            )
            num_right = int((logits_LV.argmax(dim=-1) == targets_L).sum())
            counted.append(Counted(float(losses_L.double().sum()), num_right, num_tokens))
    return counted


def perplexity(loss: float) -> float:
    """e to the loss; infinite where that is beyond a float."""
    if loss < 700:
        return math.exp(loss)
    return math.inf
