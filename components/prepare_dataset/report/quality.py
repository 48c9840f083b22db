"""Tokenised conversations and their rows -> the numbers that tell whether they are worth training
on (quality.json)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from pydantic import Field
from tokenizers import Tokenizer

from components.prepare_dataset.packing.stored import Chosen, length_counts, stored_samples
from components.prepare_dataset.report.shown_samples import Piece, ShownSample, pieces, row_counts
from components.prepare_dataset.samples.tokens import Encoded
from components.shared.documents.fields import FrozenModel

Number = TypeVar("Number", int, float)

_NUM_BINS = 24
_NUM_EXAMPLES = 2
NUM_PLACES = 20
"""Of copies and leaks that are listed, and of the places of one."""


class Shares(FrozenModel):
    """Of trained tokens among all tokens of a conversation: 0 would teach nothing, 1 would teach
    the questions too."""

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
    """Texts of these conversations: more than one each where the template writes earlier turns
    otherwise."""
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


class RowSize(FrozenModel):
    """What a row of this number of tokens would hold, before anything is left out."""

    row_tokens: int
    samples: float
    """Share of the samples that fit."""
    tokens: float
    """Share of all tokens in these."""


class Quality(FrozenModel):
    schema_version: int = 1
    row_tokens: int
    row_tokens_reason: str = ""
    packed: bool = True
    """Whether conversations share rows; else each row is one."""
    chat_template: str
    train: SetQuality
    held_out: SetQuality | None
    """None where nothing is held out."""
    copies: Places
    """The same conversation more than once in the training data."""
    leaks: Places
    """Held-out conversations that are trained on: the loss on them flatters."""
    near_copies: Places = Places(count=0, first=())
    """Samples of the training data that are trained to give nearly the answers of another one."""
    near_leaks: Places = Places(count=0, first=())
    """The same of held-out samples and training data."""
    skipped: int = 0
    """Bad records that were left out, as `data.on_bad_record` says."""
    warnings: tuple[str, ...]
    sources: tuple[str, ...] = ()
    """How many records of each source are trained on in an epoch, where there are several."""
    turns: dict[str, int] = Field(default_factory=dict)
    """Turns of each role."""
    row_sizes: tuple[RowSize, ...] = ()
    samples: tuple[ShownSample, ...] = ()
    """A few of those in the rows, and of those left out."""
    examples: tuple[tuple[Piece, ...], ...]
    """The first conversations of the training data, decoded from their tokens."""


def set_quality(
    samples: Chosen[Encoded],
    *,
    num_rows: int,
    row_tokens: int,
    dropped_lengths: Sequence[int] = (),
) -> SetQuality:
    """`samples` are those in the rows, at least one."""
    kept = stored_samples(samples)
    lengths = length_counts(samples)
    num_tokens = sum(length * count for length, count in lengths.items())
    shares = Counter(
        round(kept.num_trained[number] / kept.lengths[number], 4) for number in samples.numbers
    )
    return SetQuality(
        conversations=sum(1 for _ in groupby(kept.sources[number] for number in samples.numbers)),
        samples=len(samples),
        dropped=len(dropped_lengths),
        dropped_tokens=sum(dropped_lengths),
        rows=num_rows,
        tokens=num_tokens,
        trained_tokens=sum(kept.num_trained[number] for number in samples.numbers),
        packing_efficiency=round(num_tokens / (num_rows * row_tokens), 4),
        trained_share=Shares(
            min=min(shares),
            median=_percentile(shares, 50),
            max=max(shares),
        ),
        lengths=Lengths(
            min=min(lengths),
            p50=_percentile(lengths, 50),
            p90=_percentile(lengths, 90),
            p99=_percentile(lengths, 99),
            max=max(lengths),
        ),
        histogram=_histogram(lengths + Counter(dropped_lengths)),
    )


def examples(tokenizer: Tokenizer, samples: Sequence[Encoded]) -> tuple[tuple[Piece, ...], ...]:
    return tuple(
        pieces(tokenizer, samples[index]) for index in range(min(_NUM_EXAMPLES, len(samples)))
    )


def row_sizes(lengths: Mapping[int, int], row_tokens: int) -> tuple[RowSize, ...]:
    """`lengths` are those of all samples in tokens, with their counts."""
    num_samples = sum(lengths.values())
    total = sum(length * count for length, count in lengths.items())
    counts = row_counts(lengths, row_tokens)
    return tuple(
        RowSize(row_tokens=size, samples=num / num_samples, tokens=tokens / total)
        for size, num, tokens in counts
    )


def _percentile(counts: Mapping[Number, int], percent: int) -> Number:
    """By nearest rank, of numbers that are given with their counts."""
    rank = max(1, -(-sum(counts.values()) * percent // 100))
    for number in sorted(counts):
        rank -= counts[number]
        if rank <= 0:
            return number
    raise ValueError("no percentile of nothing")


def _histogram(lengths: Mapping[int, int]) -> tuple[Bin, ...]:
    """At most 24 bins of one width, from the shortest sample to the longest; `lengths` are given
    with their counts."""
    least, most = min(lengths), max(lengths)
    width = -(-(most - least + 1) // _NUM_BINS)
    counts = [0] * ((most - least) // width + 1)
    for length, count in lengths.items():
        counts[(length - least) // width] += count
    return tuple(
        Bin(start=least + n * width, end=least + (n + 1) * width, conversations=count)
        for n, count in enumerate(counts)
    )
