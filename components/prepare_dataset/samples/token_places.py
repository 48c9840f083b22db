"""Texts -> their tokens, each with where in its text it begins.

tokenizers tells the places of tokens at the price of half its speed. Where each token stands for
certain bytes, as in byte-level BPE, the places follow from the tokens alone: they are the sums of
the lengths.
"""

import json
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow.compute
from tokenizers import Encoding, Tokenizer

from components.prepare_dataset.packing.numbers_of import as_arrow, from_arrow

compute: Any = pyarrow.compute  # has no types of its own


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one text."""

    ids: "array[int]"
    ranges: tuple[tuple[int, int] | None, ...]
    """Of each span that was asked for: its [first, last) token; None where the tokenizer has none
    for it."""
    starts_inside_token: bool
    """A span begins in the middle of a token."""


class PlacedTokenizer:
    """A tokenizer that says which tokens a span of its text has; without special tokens of its
    own."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(
        self, texts: Sequence[str], spans: Sequence[tuple[tuple[int, int], ...]]
    ) -> list[Tokens]:
        """Of each text, with its spans, [start, end) in characters."""
        lengths = self._lengths
        if lengths is None:
            encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
            return [
                _by_offsets(encoding, asked)
                for encoding, asked in zip(encodings, spans, strict=True)
            ]
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [array("i", encoding.ids) for encoding in encodings]
        all_ends = from_arrow(compute.cumulative_sum(lengths.take(as_arrow(_joined(ids)))))
        found: list[Tokens] = []
        first = before = 0
        for text, each, asked in zip(texts, ids, spans, strict=True):
            ends = all_ends[first : first + len(each)]
            found.append(self._by_lengths(text, each, ends, before, asked))
            first += len(each)
            if each:
                before = ends[-1]
        return found

    def _by_lengths(
        self,
        text: str,
        ids: "array[int]",
        ends: Sequence[int],
        before: int,
        spans: tuple[tuple[int, int], ...],
    ) -> Tokens:
        """`ends` are where the tokens end, in bytes, counted from `before` bytes before the
        text."""
        plain = text.isascii()
        if plain:
            num_bytes = len(text)
        else:
            num_bytes = len(text.encode())
        if not ids or ends[-1] - before != num_bytes or not (plain or self._is_normal(text)):
            return _by_offsets(self._tokenizer.encode(text, add_special_tokens=False), spans)
        if plain:
            places = ((start, end - 1) for start, end in spans)
        else:
            places = _places_in_bytes(text, spans)
        ranges: list[tuple[int, int] | None] = []
        inside = False
        for start, last_start in places:
            begin, last = before + start, before + last_start
            first = bisect_right(ends, begin)
            inside |= (ends[first - 1] if first else before) < begin
            ranges.append((first, bisect_right(ends, last) + 1))
        return Tokens(ids, tuple(ranges), inside)

    def _is_normal(self, text: str) -> bool:
        return self._normal_form is None or unicodedata.is_normalized("NFC", text)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return json.loads(self._tokenizer.to_str())

    @cached_property
    def _normal_form(self) -> str | None:
        normalizer = self._settings["normalizer"]
        if normalizer is None:
            return None
        return normalizer["type"]

    @cached_property
    def _lengths(self) -> Any:
        """Bytes of each token; None where a token does not stand for bytes of the text."""
        settings = self._settings
        splits = settings["pre_tokenizer"] or {}
        steps = splits.get("pretokenizers", [splits])
        if settings["model"]["type"] != "BPE" or self._normal_form not in (None, "NFC"):
            return None
        if not any(step.get("type") == "ByteLevel" for step in steps) or any(
            step.get("add_prefix_space") for step in steps
        ):
            return None
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        lengths = array("q", bytes(8 * (1 + max(vocabulary.values()))))
        for token, number in vocabulary.items():
            lengths[number] = len(token)  # byte-level BPE writes each byte as one character
        for number, token in self._tokenizer.get_added_tokens_decoder().items():
            lengths[number] = len(token.content.encode())
        return as_arrow(lengths)


def _places_in_bytes(text: str, spans: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """Bytes of UTF-8 before the first and before the last character of each span; spans in order
    and apart."""
    done = num_bytes = 0
    for start, end in spans:
        first = num_bytes + len(text[done:start].encode())
        num_bytes = first + len(text[start : end - 1].encode())
        done = end - 1
        yield first, num_bytes


def _joined(parts: "Iterable[array[int]]") -> "array[int]":
    joined = array("i")
    for part in parts:
        joined.extend(part)
    return joined


def _by_offsets(encoding: Encoding, spans: tuple[tuple[int, int], ...]) -> Tokens:
    ranges: list[tuple[int, int] | None] = []
    inside = False
    for start, end in spans:
        first, last = _first_token(encoding, start, end), encoding.char_to_token(end - 1)
        if first is None or last is None:
            ranges.append(None)
            continue
        ranges.append((first, last + 1))
        begin = encoding.token_to_chars(first)
        inside |= begin is not None and begin[0] < start
    return Tokens(array("i", encoding.ids), tuple(ranges), inside)


def _first_token(encoding: Encoding, start: int, end: int) -> int | None:
    """The token of the first character that has one: a normalizer may leave white space without."""
    return next(
        (
            token
            for char in range(start, end)
            if (token := encoding.char_to_token(char)) is not None
        ),
        None,
    )
