"""Held-out rows -> a model's loss per trained token.

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
MOST_TOKENS = 128
MOVE_ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 5e-3, torch.float16: 5e-3}
"""Of `others_move`."""


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

    transformers (5.23, masking_utils.py) keeps those of a packed row apart by position_ids that restart, only where no attention_mask
    is given and no cache is used, and not in every model: such have one conversation a row, and may take no position_ids.
    """
    logits_TV = row_logits(model, row)
    labels_T = torch.tensor(row.labels, device=model.device)
    starts_T = torch.tensor([position == 0 for position in positions(row.lengths)], device=model.device)
    labels_T[starts_T] = NOT_TRAINED  # what comes before is another conversation's last token
    targets_T = labels_T[1:]
    loss_sum = cross_entropy(logits_TV[:-1].float(), targets_T, ignore_index=NOT_TRAINED, reduction="sum")
    return float(loss_sum), int((targets_T != NOT_TRAINED).sum())


def row_logits(model: Any, row: PackedRow) -> torch.Tensor:
    """[T, V]. Without positions where the row is one conversation."""
    inputs = {"input_ids": torch.tensor([row.input_ids], device=model.device)}
    if len(row.lengths) > 1:
        inputs["position_ids"] = torch.tensor([list(positions(row.lengths))], device=model.device)
    return model(**inputs, use_cache=False).logits[0]


@torch.inference_mode()
def others_move(model: Any, rows: list[PackedRow]) -> float:
    """How far a conversation's logits move when the one before it in the row changes, as components/train/apart.py measures it before
    training: root mean square over the vocabulary in standard deviations, the largest of the tokens. 0 where no row holds two."""
    row = next((row for row in rows if len(row.lengths) > 1), None)
    if row is None:
        return 0.0
    start = row.lengths[0]
    first, second = row.input_ids[:start][-MOST_TOKENS:], row.input_ids[start : start + row.lengths[1]][:MOST_TOKENS]
    known = sorted({*first, *second})
    following = dict(zip(known, known[1:] + known[:1], strict=True))
    lengths = [len(first), len(second)]
    one_TV = row_logits(model, PackedRow(first + second, [], lengths)).float()
    other_TV = row_logits(model, PackedRow([following[token] for token in first] + second, [], lengths)).float()
    moved_T = (one_TV - other_TV).square().mean(dim=1).sqrt() / one_TV.std()
    return float(moved_T[len(first) :].max())


def positions(lengths: list[int]) -> Iterator[int]:
    """[3, 2] -> 0 1 2 0 1."""
    for length in lengths:
        yield from range(length)


def perplexity(loss: float) -> float:
    """e to the loss; infinite where that is beyond a float."""
    return math.exp(loss) if loss < 700 else math.inf
