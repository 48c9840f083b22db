"""Lengths of samples, and the model -> how many tokens a row has, where `data.row_tokens` is
auto."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.shared.model.positions import known_positions
from components.shared.spec.data import DataSpec

_LEAST_PACKED = 1024
"""A shorter row would only make more rows: all conversations fit in one of this size."""
_MULTIPLE = 64
"""Of a row of one conversation: what training pads to on a GPU (components/train/loop/rows.py,
GPU_MULTIPLE)."""
_KEPT_SHARE = 0.99
"""Of all tokens that stay where what is too long may be dropped: a few long conversations do not
make every row long."""
_TEXT_TOKENS = 4096
"""Of a text, as many are common in continued pretraining (Llama 2's context, arXiv 2307.09288)."""
MOST_TOKENS = 1_048_576


@dataclass(frozen=True)
class RowLength:
    tokens: int
    reason: str


def row_length(
    data: DataSpec,
    lengths: Sequence[int],
    config: Mapping[str, Any],
    *,
    packed: bool,
    texts: Sequence[int] = (),
) -> RowLength:
    """What the spec says, or for auto the shortest row that holds the samples; `lengths` are theirs
    in tokens, `texts` those of texts, which were cut; at least one of both.

    All of them fit, or with `too_long: drop` all parts of texts and as many of the shortest others
    as hold 99 % of the others' tokens, if the model has positions for them.
    """
    if data.row_tokens != "auto":
        return RowLength(data.row_tokens, "as data.row_tokens says")
    most = longest_row(config)
    if data.too_long == "drop":
        needed, what = (
            _length_of_share(lengths),
            f"{_KEPT_SHARE:.0%} of the tokens are in samples of up to",
        )
    else:
        needed, what = max(lengths, default=0), "the longest sample has"
    if max(texts, default=0) > needed:
        needed, what = max(texts), "the longest part of a text has"
    if packed:
        rounded = _power_of_two(max(needed, _LEAST_PACKED))
    else:
        rounded = -(-needed // _MULTIPLE) * _MULTIPLE
    reason = (
        f"{what} {needed:,} tokens, rounded up to "
        f"{'a power of two' if packed else f'a multiple of {_MULTIPLE}'}"
    )
    if packed and needed < _LEAST_PACKED:
        reason = f"{what} {needed:,} tokens, and rows of {_LEAST_PACKED:,} hold several"
    if rounded > most:
        return RowLength(most, f"{what} {needed:,} tokens, and the model knows {most:,} positions")
    return RowLength(rounded, reason)


def longest_row(config: Mapping[str, Any]) -> int:
    """Most tokens that a row of this model may have."""
    known = known_positions(config)
    if known is None:
        return MOST_TOKENS
    return min(known[1], MOST_TOKENS)


def text_row(data: DataSpec, config: Mapping[str, Any]) -> int:
    """Most tokens of a row of a text, which is cut there: those of a row, or 4,096 for auto."""
    if data.row_tokens == "auto":
        return min(_TEXT_TOKENS, longest_row(config))
    return data.row_tokens


def _length_of_share(lengths: Sequence[int]) -> int:
    counts = Counter(lengths)
    limit = _KEPT_SHARE * sum(length * count for length, count in counts.items())
    total = 0
    for length in sorted(counts):
        total += length * counts[length]
        if total >= limit:
            return length
    return 0


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
