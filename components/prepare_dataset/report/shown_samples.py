"""Which samples people look at before they pay, each as text and as tokens, cut to what a page has
room for."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby

from tokenizers import Tokenizer

from components.prepare_dataset.packing.stored import Chosen, stored_samples
from components.prepare_dataset.samples.tokens import Encoded
from components.shared.documents.fields import FrozenModel

MOST_CHARACTERS = 3000
MOST_TOKENS = 160
_SPREAD = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: a product modulo 2^64 is a hash of its own (mixture.py)."""


class Piece(FrozenModel):
    """Consecutive tokens of a sample as text, all trained on or none."""

    text: str
    trained: bool


class ShownToken(FrozenModel):
    text: str
    """Of this token alone; bytes that are no whole character as `\\xe6`."""
    id: int
    trained: bool


class ShownSample(FrozenModel):
    name: str
    """Why it is shown, such as `longest`."""
    where: str
    num_tokens: int
    num_trained: int
    pieces: tuple[Piece, ...]
    """The text, its middle left out where it is long."""
    tokens: tuple[ShownToken, ...]
    """The first and the last ones, at most 160."""
    num_left_out: int
    """Tokens between those."""


def shown_samples(
    tokenizer: Tokenizer, samples: Chosen[Encoded], dropped: Sequence[int] = ()
) -> tuple[ShownSample, ...]:
    """`samples` are trained on or held out, `dropped` the numbers of those that were left out as
    too long."""
    kept = stored_samples(samples)
    return tuple(
        shown_sample(tokenizer, kept[number], name) for name, number in _chosen(samples, dropped)
    )


def shown_sample(tokenizer: Tokenizer, sample: Encoded, name: str) -> ShownSample:
    marked = trained_marks(sample)
    half = MOST_TOKENS // 2
    places = range(len(marked))
    if len(places) <= MOST_TOKENS:
        shown = places
    else:
        shown = [*places[:half], *places[-half:]]
    tokens = (
        ShownToken(
            text=token_text(tokenizer, sample.ids[place]),
            id=sample.ids[place],
            trained=marked[place],
        )
        for place in shown
    )
    return ShownSample(
        name=name,
        where=sample.source.where,
        num_tokens=len(sample.ids),
        num_trained=sample.num_trained,
        pieces=tuple(_cut(pieces(tokenizer, sample))),
        tokens=tuple(tokens),
        num_left_out=len(places) - len(shown),
    )


def trained_marks(sample: Encoded) -> list[bool]:
    """Of each token, whether it is trained on."""
    marks = [False] * len(sample.ids)
    for start, end in sample.trained:
        marks[start:end] = [True] * (end - start)
    return marks


def pieces(tokenizer: Tokenizer, encoded: Encoded) -> tuple[Piece, ...]:
    """The sample cut where training on it begins and ends, each piece decoded with its special
    tokens shown."""
    runs = groupby(zip(trained_marks(encoded), encoded.ids, strict=True), key=lambda each: each[0])
    return tuple(
        Piece(
            text=tokenizer.decode([token for _, token in run], skip_special_tokens=False),
            trained=trained,
        )
        for trained, run in runs
    )


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """What one token stands for, also where that is a part of a character."""
    written = tokenizer.id_to_token(token)
    if written is None:
        return ""
    if token in tokenizer.get_added_tokens_decoder() or not all(
        char in _byte_of() for char in written
    ):
        return written.replace("\u2581", " ")
    return bytes(_byte_of()[char] for char in written).decode("utf-8", "backslashreplace")


@cache
def _byte_of() -> dict[str, int]:
    """Character by which byte-level BPE writes a byte -> the byte (openai/gpt-2, encoder.py,
    bytes_to_unicode)."""
    shown = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


def _chosen(samples: Chosen[Encoded], dropped: Sequence[int]) -> list[tuple[str, int]]:
    """By number, each once: the first, one by chance, the longest, the one with the smallest
    trained share, the longest dropped."""
    kept, numbers = stored_samples(samples), samples.numbers
    digests = kept.conversations.digests
    named = [
        ("first sample", numbers[0]),
        (
            "random sample",
            min(numbers, key=lambda number: digests[kept.sources[number]] * _SPREAD % 2**64),
        ),
        ("longest sample", max(numbers, key=kept.lengths.__getitem__)),
        (
            "least trained sample",
            min(numbers, key=lambda number: kept.num_trained[number] / kept.lengths[number]),
        ),
    ]
    if dropped:
        named.append(
            ("longest sample that was left out", max(dropped, key=kept.lengths.__getitem__))
        )
    return [
        (name, each)
        for index, (name, each) in enumerate(named)
        if all(each != other for _, other in named[:index])
    ]


def _cut(whole: Sequence[Piece]) -> Iterator[Piece]:
    """At most 3,000 characters: the first and the last."""
    num_characters = sum(len(piece.text) for piece in whole)
    if num_characters <= MOST_CHARACTERS:
        yield from whole
        return
    half = MOST_CHARACTERS // 2
    yield from _first(whole, half)
    yield Piece(text=f"\n… {num_characters - 2 * half:,} more characters …\n", trained=False)
    backwards = [Piece(text=piece.text[::-1], trained=piece.trained) for piece in reversed(whole)]
    last = [
        Piece(text=piece.text[::-1], trained=piece.trained) for piece in _first(backwards, half)
    ]
    yield from reversed(last)


def _first(whole: Sequence[Piece], most: int) -> Iterator[Piece]:
    for piece in whole:
        if most > 0:
            yield Piece(text=piece.text[:most], trained=piece.trained)
        most -= len(piece.text)


def row_counts(lengths: Mapping[int, int], row_tokens: int) -> list[tuple[int, int, int]]:
    """(tokens of a row, samples that fit it, tokens of these) for usual sizes up to the longest,
    and the one that is taken; `lengths` are given with their counts."""
    usual = (size for size in _USUAL_ROWS if size < 2 * max(lengths))
    found: list[tuple[int, int, int]] = []
    for size in sorted({*usual, row_tokens}):
        fitting = {length: count for length, count in lengths.items() if length <= size}
        num_tokens = sum(length * count for length, count in fitting.items())
        found.append((size, sum(fitting.values()), num_tokens))
    return found


_USUAL_ROWS = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
