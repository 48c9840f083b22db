"""Held-out rows -> what a model gives for each conversation: the loss of its trained tokens, and how many it would have chosen.

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
    """Of each conversation of all rows, in their order, that has a trained token. `on_row` is called after each row."""
    counted: list[Counted] = []
    for row in rows:
        counted += count_row(model, row)
        on_row()
    return counted


@torch.inference_mode()
def count_row(model: Any, row: PackedRow) -> list[Counted]:
    """Of each conversation of the row, none of which sees another.

    transformers (5.23, masking_utils.py) keeps those of a packed row apart by position_ids that restart, only where no attention_mask
    is given and no cache is used, and not in every model: such have one conversation a row, and may take no position_ids.
    """
    logits_TV = row_logits(model, row)
    labels_T = torch.tensor(row.labels, device=model.device)
    starts_T = torch.tensor([position == 0 for position in positions(row.lengths)], device=model.device)
    labels_T[starts_T] = NOT_TRAINED  # what comes before is another conversation's last token
    targets_T = labels_T[1:]
    losses_T = cross_entropy(logits_TV[:-1].float(), targets_T, ignore_index=NOT_TRAINED, reduction="none")
    right_T = logits_TV[:-1].argmax(dim=-1) == targets_T
    trained_T = targets_T != NOT_TRAINED
    counted: list[Counted] = []
    start = 0
    for length in row.lengths:
        own = slice(max(start - 1, 0), start + length - 1)  # the target of token 5 stands at 4
        start += length
        num_tokens = int(trained_T[own].sum())
        if num_tokens:
            counted.append(Counted(float(losses_T[own].double().sum()), int(right_T[own].sum()), num_tokens))
    return counted


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
