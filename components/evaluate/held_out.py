"""Packed held-out rows -> a model's loss per trained token.

Shapes: T tokens of a row, V tokens of the vocabulary. One row at a time: memory for its logits, T x V x 4 bytes, is the peak.
"""

import math
from collections.abc import Callable, Iterator
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
    """(sum of losses in nats, number of trained tokens) of a row whose conversations do not see each other.

    transformers (5.23, masking_utils.py) keeps them apart by position_ids that restart, only where no attention_mask is given and
    no cache is used.
    """
    tokens_1T = torch.tensor([row.input_ids], device=model.device)
    positions_1T = torch.tensor([list(positions(row.lengths))], device=model.device)
    logits_TV = model(input_ids=tokens_1T, position_ids=positions_1T, use_cache=False).logits[0]
    labels_T = torch.tensor(row.labels, device=model.device)
    labels_T[positions_1T[0] == 0] = NOT_TRAINED  # what comes before is another conversation's last token
    targets_T = labels_T[1:]
    loss_sum = cross_entropy(logits_TV[:-1].float(), targets_T, ignore_index=NOT_TRAINED, reduction="sum")
    return float(loss_sum), int((targets_T != NOT_TRAINED).sum())


def positions(lengths: list[int]) -> Iterator[int]:
    """[3, 2] -> 0 1 2 0 1."""
    for length in lengths:
        yield from range(length)


def perplexity(loss: float) -> float:
    """e to the loss; infinite where that is beyond a float."""
    return math.exp(loss) if loss < 700 else math.inf
