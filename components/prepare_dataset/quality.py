"""Tokenised conversations and their rows -> the numbers that tell whether they are worth training on (quality.json)."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from tokenizers import Tokenizer

from components.prepare_dataset.tokens import Encoded
from components.shared.spec import FrozenModel

Number = TypeVar("Number", int, float)

_NUM_BINS = 24
_NUM_EXAMPLES = 2
_NUM_PLACES = 20


class Shares(FrozenModel):
    """Of trained tokens among all tokens of a conversation: 0 would teach nothing, 1 would teach the questions too."""

    min: float
    median: float
    max: float


class Lengths(FrozenModel):
    """Of samples in the rows, in tokens: the least, the percentiles by nearest rank, the most."""

    min: int
    p50: int
    p90: int
    p99: int
    max: int


class Bin(FrozenModel):
    """Samples with `start` <= tokens < `end`."""

    start: int
    end: int
    conversations: int


class SetQuality(FrozenModel):
    """One of the two sets: training or held out."""

    conversations: int
    samples: int
    """Texts of these conversations: more than one each where the template writes earlier turns otherwise."""
    dropped: int
    """Samples longer than a row."""
    dropped_tokens: int
    rows: int
    tokens: int
    trained_tokens: int
    packing_efficiency: float
    """Tokens per token of room in the rows, at most 1."""
    trained_share: Shares
    lengths: Lengths
    histogram: tuple[Bin, ...]
    """Of all samples, those left out as too long among them."""


class Places(FrozenModel):
    """Findings: how many, and where the first of them are, as `file:line`."""

    count: int
    first: tuple[tuple[str, ...], ...]


class Piece(FrozenModel):
    """Consecutive tokens of a conversation as text, all trained on or none."""

    text: str
    trained: bool


class Quality(FrozenModel):
    schema_version: int = 1
    row_tokens: int
    packed: bool = True
    """Whether conversations share rows; else each row is one."""
    chat_template: str
    train: SetQuality
    held_out: SetQuality
    copies: Places
    """The same conversation more than once in the training data."""
    leaks: Places
    """Held-out conversations that are trained on: the loss on them flatters."""
    warnings: tuple[str, ...]
    examples: tuple[tuple[Piece, ...], ...]
    """The first conversations of the training data, decoded from their tokens."""


def set_quality(
    encoded: Sequence[Encoded],
    *,
    num_rows: int,
    row_tokens: int,
    dropped_lengths: Sequence[int] = (),
) -> SetQuality:
    """`encoded` are the samples in the rows, at least one."""
    lengths = sorted(len(conversation.ids) for conversation in encoded)
    shares = sorted(round(conversation.num_trained / len(conversation.ids), 4) for conversation in encoded)
    return SetQuality(
        conversations=len({id(tokens.source) for tokens in encoded}),
        samples=len(encoded),
        dropped=len(dropped_lengths),
        dropped_tokens=sum(dropped_lengths),
        rows=num_rows,
        tokens=sum(lengths),
        trained_tokens=sum(conversation.num_trained for conversation in encoded),
        packing_efficiency=round(sum(lengths) / (num_rows * row_tokens), 4),
        trained_share=Shares(min=shares[0], median=_nearest_rank(shares, 50), max=shares[-1]),
        lengths=Lengths(
            min=lengths[0],
            p50=_nearest_rank(lengths, 50),
            p90=_nearest_rank(lengths, 90),
            p99=_nearest_rank(lengths, 99),
            max=lengths[-1],
        ),
        histogram=_histogram(sorted((*lengths, *dropped_lengths))),
    )


def places(found: Iterable[tuple[str, ...]]) -> Places:
    listed = tuple(found)
    return Places(count=len(listed), first=listed[:_NUM_PLACES])


def examples(tokenizer: Tokenizer, encoded: Sequence[Encoded]) -> tuple[tuple[Piece, ...], ...]:
    return tuple(pieces(tokenizer, conversation) for conversation in encoded[:_NUM_EXAMPLES])


def pieces(tokenizer: Tokenizer, encoded: Encoded) -> tuple[Piece, ...]:
    """The conversation cut where training on it begins and ends, each piece decoded with its special tokens shown."""
    found: list[Piece] = []
    position = 0
    for start, end in (*encoded.trained, (len(encoded.ids), len(encoded.ids))):
        for begin, stop, trained in ((position, start, False), (start, end, True)):
            if begin < stop:
                text = tokenizer.decode(list(encoded.ids[begin:stop]), skip_special_tokens=False)
                found.append(Piece(text=text, trained=trained))
        position = end
    return tuple(found)


def _nearest_rank(ordered: Sequence[Number], percent: int) -> Number:
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _histogram(ordered: Sequence[int]) -> tuple[Bin, ...]:
    """At most 24 bins of one width, from the shortest conversation to the longest."""
    least, most = ordered[0], ordered[-1]
    width = -(-(most - least + 1) // _NUM_BINS)
    counts = [0] * ((most - least) // width + 1)
    for length in ordered:
        counts[(length - least) // width] += 1
    return tuple(Bin(start=least + n * width, end=least + (n + 1) * width, conversations=count) for n, count in enumerate(counts))
