"""Packed conversations -> a parquet file: input_ids, labels, lengths, each a list<int32> a row.

Rows are not padded on disk. `labels` repeats input_ids where a token is trained on and is -100
elsewhere; `lengths` are the conversations' own, in order, so that [3, 2] is a row of 5 tokens in
which positions run 0 1 2 0 1.
"""

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.prepare_dataset.packing.numbers_of import as_arrow
from components.prepare_dataset.packing.stored import Chosen, stored_samples
from components.prepare_dataset.samples.tokens import Encoded

NOT_TRAINED = -100
"""The label that cross_entropy leaves out: torch.nn.CrossEntropyLoss, ignore_index."""

_ROWS_AT_ONCE = 1024
_TOKENS_AT_ONCE = 2 << 20
"""Of long rows fewer are held in memory at once: 2 million tokens take 16 MB."""
_COLUMNS = ("input_ids", "labels", "lengths")
_SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in _COLUMNS])


def write_rows(
    path: Path, rows: Sequence[Sequence[int]], samples: Chosen[Encoded], *, row_tokens: int
) -> None:
    """The rows, each given as indices into `samples`, are in the file in their order."""
    at_once = max(1, min(_ROWS_AT_ONCE, _TOKENS_AT_ONCE // row_tokens))
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for start in range(0, len(rows), at_once):
            columns = _Columns()
            for row in rows[start : start + at_once]:
                columns.append(_tokens(samples, index) for index in row)
            writer.write_table(columns.table())
    pa.default_memory_pool().release_unused()  # 40 MB that this process needs no more


class _Columns:
    """Rows of one group, as three lists of numbers side by side."""

    def __init__(self) -> None:
        self._values = [array("i") for _ in _COLUMNS]
        self._offsets = [array("i", [0]) for _ in _COLUMNS]

    def append(
        self, conversations: "Iterable[tuple[array[int], tuple[tuple[int, int], ...]]]"
    ) -> None:
        ids, marked, lengths = self._values
        for own_ids, trained in conversations:
            ids.extend(own_ids)
            marked.extend(labels(own_ids, trained))
            lengths.append(len(own_ids))
        for values, offsets in zip(self._values, self._offsets, strict=True):
            offsets.append(len(values))

    def table(self) -> pa.Table:
        """Of C ints, without a Python object for each: 100 times faster than pa.array."""
        pairs = zip(self._values, self._offsets, strict=True)
        columns = [
            pa.ListArray.from_arrays(as_arrow(offsets), as_arrow(values))
            for values, offsets in pairs
        ]
        return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _tokens(
    samples: Chosen[Encoded], index: int
) -> "tuple[array[int], tuple[tuple[int, int], ...]]":
    return stored_samples(samples).tokens(samples.numbers[index])


def labels(ids: "array[int]", trained: Iterable[tuple[int, int]]) -> "array[int]":
    """One label for each token of the conversation; `trained` are [start, end) of what is trained
    on."""
    marked = array("i", [NOT_TRAINED]) * len(ids)
    for start, end in trained:
        marked[start:end] = ids[start:end]
    return marked
