"""Packed conversations -> a parquet file: input_ids, labels, lengths, each a list<int32> a row.

Rows are not padded on disk. `labels` repeats input_ids where a token is trained on and is -100 elsewhere; `lengths`
are the conversations' own, in order, so that [3, 2] is a row of 5 tokens in which positions run 0 1 2 0 1.
"""

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.prepare_dataset.tokens import Encoded

NOT_TRAINED = -100
"""The label that cross_entropy leaves out: torch.nn.CrossEntropyLoss, ignore_index."""

_ROWS_AT_ONCE = 1024
_COLUMNS = ("input_ids", "labels", "lengths")
_SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in _COLUMNS])


def write_rows(path: Path, rows: Sequence[tuple[int, ...]], encoded: Sequence[Encoded]) -> None:
    """The rows, each given as indices into `encoded`, are in the file in their order."""
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            members = [[encoded[index] for index in row] for row in rows[start : start + _ROWS_AT_ONCE]]
            columns = [
                _lists([_joined(conversation.ids for conversation in row) for row in members]),
                _lists([_joined(labels(conversation) for conversation in row) for row in members]),
                _lists([array("i", (len(conversation.ids) for conversation in row)) for row in members]),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))


def labels(encoded: Encoded) -> "array[int]":
    """One label for each token of the conversation."""
    marked = array("i", [NOT_TRAINED]) * len(encoded.ids)
    for start, end in encoded.trained:
        marked[start:end] = encoded.ids[start:end]
    return marked


def _joined(parts: "Iterable[array[int]]") -> "array[int]":
    joined = array("i")
    for part in parts:
        joined.extend(part)
    return joined


def _lists(values: "Sequence[array[int]]") -> pa.Array:
    """A list<int32> array of C ints, without a Python object for each: 100 times faster than pa.array."""
    offsets = array("i", [0])
    for value in values:
        offsets.append(offsets[-1] + len(value))
    return pa.ListArray.from_arrays(_int32(offsets), _int32(_joined(values)))


def _int32(values: "array[int]") -> pa.Array:
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])
