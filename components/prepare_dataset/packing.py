"""Lengths of conversations -> which of them share a row. Pure: the same lengths give the same rows.

First-fit decreasing: the longest conversation first, each into the first row that still has room. It needs at most
11/9 of the fewest rows possible, plus 6/9 (Dosa, "The tight bound of First Fit Decreasing", 2007); in practice 1 or 2
% of a row's room stays empty. A tree over the rows' room finds the row in log n steps: 100,000 lengths take about 1 s.
"""

import hashlib
from collections.abc import Sequence

ROW_ORDER_VERSION = 1
"""Changes whenever the same lengths would give other rows: it is part of what a dataset was made from."""


def pack(lengths: Sequence[int], row_tokens: int) -> list[tuple[int, ...]]:
    """Indices of the conversations in each row: each in exactly one, no row longer than `row_tokens`.

    Rows come in the order of a hash of their indices: without it the longest would be trained on first.
    `lengths` must lie in 1..row_tokens.
    """
    assert all(1 <= length <= row_tokens for length in lengths)
    rows: list[list[int]] = []
    room = _Room(len(lengths), row_tokens)
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        row = room.take_first(lengths[index])
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
    return sorted((tuple(row) for row in rows), key=_order)


def one_a_row(num_conversations: int) -> list[tuple[int, ...]]:
    """Each conversation in a row of its own, in the order that `pack` gives to such rows."""
    return sorted(((index,) for index in range(num_conversations)), key=_order)


def _order(row: tuple[int, ...]) -> bytes:
    return hashlib.sha256(" ".join(map(str, row)).encode()).digest()


class _Room:
    """The room left in each of `num_rows` rows, and above them, in a binary tree, the most room in any row below.

    Node 1 is the root, node n has children 2n and 2n + 1; rows are the leaves, left to right.
    """

    def __init__(self, num_rows: int, row_tokens: int) -> None:
        self._num_leaves = 1 << max(num_rows - 1, 0).bit_length()
        self._most = [row_tokens] * (2 * self._num_leaves)

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
