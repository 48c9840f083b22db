"""Packed rows from parquet -> the tensors of one forward pass, in which no conversation sees another.

Shapes: B rows of a micro-batch, T tokens of its longest row.

transformers (5.23, masking_utils.py) builds the block-diagonal attention mask from position_ids that restart at 0, but
only where no attention_mask is given and no cache is used; a mask of ones would silently let conversations mix.
"""

from pathlib import Path
from typing import TypedDict

import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

NOT_TRAINED = -100


class Row(TypedDict):
    input_ids: list[int]
    labels: list[int]
    lengths: list[int]


class Batch(TypedDict):
    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor


class PackedRows(Dataset[Row]):
    """The rows of one parquet file of the dataset, in its order, held as Arrow memory."""

    def __init__(self, path: Path) -> None:
        self._table = pq.read_table(path, columns=["input_ids", "labels", "lengths"])

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Row:
        return {name: self._table[name][index].as_py() for name in ("input_ids", "labels", "lengths")}  # pyright: ignore[reportReturnType]


def collate(rows: list[Row]) -> Batch:
    """Rows as tensors [B, T], int64. Padding is one more conversation of token 0 on which nothing is trained."""
    num_tokens = max(len(row["input_ids"]) for row in rows)
    input_ids_BT = torch.zeros(len(rows), num_tokens, dtype=torch.int64)
    labels_BT = torch.full((len(rows), num_tokens), NOT_TRAINED, dtype=torch.int64)
    position_ids_BT = torch.zeros(len(rows), num_tokens, dtype=torch.int64)
    for index, row in enumerate(rows):
        used = len(row["input_ids"])
        input_ids_BT[index, :used] = torch.tensor(row["input_ids"])
        labels_BT[index, :used] = torch.tensor(row["labels"])
        start = 0
        for length in (*row["lengths"], num_tokens - used):
            position_ids_BT[index, start : start + length] = torch.arange(length)
            # The token before is another conversation's: nothing may be learned across the seam.
            labels_BT[index, start : start + 1] = NOT_TRAINED
            start += length
    return {"input_ids": input_ids_BT, "labels": labels_BT, "position_ids": position_ids_BT}
