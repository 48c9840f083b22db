"""Rows from parquet -> the tensors of one forward pass, in which no conversation sees another.

Shapes: B rows of a micro-batch, T tokens of its longest row.

Packed rows: transformers (5.23, masking_utils.py) builds the block-diagonal attention mask from position_ids that restart at 0,
but only where no attention_mask is given and no cache is used; a mask of ones would silently let conversations mix. Which model
types keep conversations apart so is in components/shared/model/row_packing.py; apart.py proves it for the loaded model.

One conversation a row: padding stands on the right, where no token of a causal model looks, so the model needs neither mask nor
positions. Types that take no position_ids get none.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

NOT_TRAINED = -100
GPU_MULTIPLE = 64
"""On a GPU rows are padded to a multiple of so many tokens: few sizes of tensors, so that its memory does not fall into pieces, and
attention masks that need no padding of their own (torch pads them to a multiple of 8 in each block)."""
_COLUMNS = ["input_ids", "labels", "lengths"]


class Row(TypedDict):
    input_ids: list[int]
    labels: list[int]
    lengths: list[int]


def row_of(conversations: Sequence[list[int]]) -> Row:
    """A row of these conversations' tokens, all of which are trained."""
    tokens = [token for each in conversations for token in each]
    return {"input_ids": tokens, "labels": tokens, "lengths": [len(each) for each in conversations]}


class Batch(TypedDict):
    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: NotRequired[torch.Tensor]
    """Only where a row holds several conversations: they restart at 0 in each."""


def unpack_rows(path: Path) -> Path:
    """The rows of a parquet file as an Arrow file beside it, 8 bytes a token, of which each process maps what it reads.

    A row group at a time is in memory.
    """
    unpacked = path.with_suffix(".arrow")
    beside = path.with_name(f".new-{os.getpid()}-{unpacked.name}")
    with pq.ParquetFile(path) as packed, ipc.new_file(str(beside), packed.schema_arrow) as target:
        for group in range(packed.num_row_groups):
            target.write_table(packed.read_row_group(group, columns=_COLUMNS))
    beside.replace(unpacked)
    return unpacked


class PackedRows(Dataset[Row]):
    """The rows of one parquet file of the dataset, in its order.

    They are mapped into memory, which all processes of a node share and which the kernel takes back when it is short.
    """

    def __init__(self, path: Path) -> None:
        """`path` is the parquet file; without an Arrow file beside it, that is made."""
        unpacked = path.with_suffix(".arrow")
        with pa.memory_map(str(unpacked if unpacked.is_file() else unpack_rows(path))) as source:
            self._table = ipc.open_file(source).read_all()

    def __len__(self) -> int:
        return self._table.num_rows

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(pc.max(pc.list_value_length(self._table["input_ids"])).as_py())  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def several(self) -> bool:
        """Whether any row holds several conversations."""
        return bool(pc.any(pc.greater(pc.list_value_length(self._table["lengths"]), 1)).as_py())  # pyright: ignore[reportAttributeAccessIssue]

    def __getitem__(self, index: int) -> Row:
        return {name: self._table[name][index].as_py() for name in _COLUMNS}  # pyright: ignore[reportReturnType]


def collate(rows: list[Row], *, num_tokens: int | None = None) -> Batch:
    """Rows as tensors [B, T], int64, padded on the right with token 0, on which nothing is trained. T is `num_tokens`, else of the
    longest row.

    In packed rows padding is one more conversation.
    """
    num_tokens = num_tokens or max(len(row["input_ids"]) for row in rows)
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
    if all(len(row["lengths"]) == 1 for row in rows):
        return {"input_ids": input_ids_BT, "labels": labels_BT}
    return {"input_ids": input_ids_BT, "labels": labels_BT, "position_ids": position_ids_BT}


def padded_length(rows: list[Row], *, longest: int) -> int:
    """Tokens of a micro-batch's rows on a GPU: a multiple of GPU_MULTIPLE, but no more than the `longest` row of all, for which the
    plan counts memory and the model has positions."""
    needed = max(len(row["input_ids"]) for row in rows)
    return min(-(-needed // GPU_MULTIPLE) * GPU_MULTIPLE, longest)


def inputs_of(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """What a model takes to give logits: all but the labels."""
    inputs = {"input_ids": batch["input_ids"].to(device)}
    if "position_ids" in batch:
        inputs["position_ids"] = batch["position_ids"].to(device)
    return inputs
