"""Lengths of conversations -> which of them share a row. Pure: the same lengths give the same rows.

First-fit decreasing: the longest conversation first, each into the first row that still has room.
It needs at most 11/9 of the fewest rows possible, plus 6/9 (Dosa, "The tight bound of First Fit
Decreasing", 2007); in practice 1 or 2 % of a row's room stays empty. A tree over the rows' room
finds the row in log n steps: 100,000 lengths take about 1 s, and about 20 bytes of memory each.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import pyarrow.compute

from components.prepare_dataset.packing.numbers_of import as_arrow, from_arrow

compute: Any = pyarrow.compute  # has no types of its own

ROW_ORDER_VERSION = 1
"""Changes whenever the same lengths would give other rows: it is part of what a dataset was made
from."""


class Rows(Sequence[tuple[int, ...]]):
    """Indices of the conversations in each row."""

    def __init__(self, members: "array[int]", ends: "array[int]", order: Sequence[int]) -> None:
        self._members, self._ends, self._order = members, ends, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        return _row(self._members, self._ends, self._order[index])

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return (self[index] for index in range(len(self)))


def pack(lengths: Sequence[int], row_tokens: int) -> Rows:
    """Each conversation in exactly one row, no row longer than `row_tokens`.

    Rows come in the order of a hash of their indices: without it the longest would be trained on
    first. `lengths` must lie in 1..row_tokens.
    """
    assert all(1 <= length <= row_tokens for length in lengths)
    # Any two rows hold more than one row's room together, or the second would not have been begun.
    room = _Room(min(len(lengths), 2 * sum(lengths) // row_tokens + 2), row_tokens)
    longest_first = _longest_first(lengths)
    row_of = array("I", (room.take_first(lengths[index]) for index in longest_first))
    counts = array("I", bytes(4 * (1 + max(row_of, default=-1))))
    for row in row_of:
        counts[row] += 1
    ends = array("I", accumulate(counts))
    next_place = array("I", (end - count for end, count in zip(ends, counts, strict=True)))
    members = array("I", bytes(4 * len(row_of)))
    for index, row in zip(longest_first, row_of, strict=True):
        members[next_place[row]] = index
        next_place[row] += 1
    return _in_order(members, ends)


def one_a_row(num_conversations: int) -> Rows:
    """Each conversation in a row of its own, in the order that `pack` gives to such rows."""
    return _in_order(
        array("I", range(num_conversations)), array("I", range(1, num_conversations + 1))
    )


def _longest_first(lengths: Sequence[int]) -> "array[int]":
    """Indices by length, of equal ones the first first."""
    counts = Counter(lengths)
    longest_first = sorted(counts, reverse=True)
    starts = accumulate((counts[length] for length in longest_first), initial=0)
    next_place = dict(zip(longest_first, starts, strict=False))
    indices = array("I", bytes(4 * len(lengths)))
    for index, length in enumerate(lengths):
        indices[next_place[length]] = index
        next_place[length] += 1
    return indices


def _in_order(members: "array[int]", ends: "array[int]") -> Rows:
    hashes = array("Q", (_place(_row(members, ends, index)) for index in range(len(ends))))
    return Rows(members, ends, from_arrow(compute.sort_indices(as_arrow(hashes))))


def _row(members: "array[int]", ends: "array[int]", index: int) -> tuple[int, ...]:
    return tuple(members[ends[index - 1] if index else 0 : ends[index]])


def _place(row: Sequence[int]) -> int:
    return int.from_bytes(hashlib.sha256(" ".join(map(str, row)).encode()).digest()[:8], "big")


class _Room:
    """The room left in each of `num_rows` rows, and above them, in a binary tree, the most room in
    any row below.

    Node 1 is the root, node n has children 2n and 2n + 1; rows are the leaves, left to right.
    """

    def __init__(self, num_rows: int, row_tokens: int) -> None:
        self._num_leaves = 1 << max(num_rows - 1, 0).bit_length()
        self._most = array("i", [row_tokens]) * (2 * self._num_leaves)

    def take_first(self, length: int) -> int:
        """The first row with room for `length`, which is taken from it. There must be one."""
        most, node = self._most, 1
        while node < self._num_leaves:
            node *= 2
            if most[node] < length:
                node += 1
        row = node - self._num_leaves
        most[node] -= length
        while node > 1:
            node //= 2
            most[node] = max(most[2 * node], most[2 * node + 1])
        return row
