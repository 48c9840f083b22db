"""Conversations of several sources, and how often each source is trained on -> the training set of
an epoch."""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from components.prepare_dataset.packing.stored import Chosen, stored
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.records import RecordFile
from components.shared.spec.data import SourceSpec

_SPREAD = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4): an odd number,
by which a product modulo 2^64 is another hash, independent of the limit below which a hash is held
out."""


def mixed(
    train: Chosen[Conversation],
    files: Sequence[RecordFile],
    sources: Sequence[SourceSpec],
) -> Chosen[Conversation]:
    """Each conversation as often as its source says, one after the other; `files` are those of the
    sources.

    A share of a source is chosen by a hash of the conversation: the same every time, whatever else
    is there.
    """
    ends = list(accumulate(len(file.conversations) for file in files))
    owners = array("I", (bisect_right(ends, number) for number in train.numbers))
    often = _often(train, owners, sources)
    digests = stored(train).digests
    chosen = array("I")
    for number, owner in zip(train.numbers, owners, strict=True):
        whole = int(often[owner])
        more = digests[number] * _SPREAD % 2**64 < (often[owner] - whole) * 2.0**64
        chosen.extend([number] * (whole + more))
    return train.of(chosen)


def source_uses(
    mixture: Chosen[Conversation],
    files: Sequence[RecordFile],
    sources: Sequence[SourceSpec],
) -> tuple[str, ...]:
    """For people, one line a source: how many of its records are trained on in an epoch. None where
    there is one source."""
    if len(sources) == 1 and sources[0].repeat == 1:
        return ()
    read = (len(file.conversations) for file in files)
    return tuple(
        f"{source.path}: {num_used:,} records in an epoch, {num_read:,} were read"
        for source, num_used, num_read in zip(sources, _num_used(mixture, files), read, strict=True)
    )


def unused_sources(
    mixture: Chosen[Conversation], files: Sequence[RecordFile], sources: Sequence[SourceSpec]
) -> tuple[str, ...]:
    """Paths of sources of which no record is trained on."""
    return tuple(
        source.path
        for source, num_used in zip(sources, _num_used(mixture, files), strict=True)
        if not num_used
    )


def _num_used(mixture: Chosen[Conversation], files: Sequence[RecordFile]) -> list[int]:
    """Records of each file in an epoch."""
    ends = list(accumulate(len(file.conversations) for file in files))
    uses = Counter(bisect_right(ends, number) for number in mixture.numbers)
    return [uses[place] for place in range(len(files))]


def _often(
    train: Chosen[Conversation], owners: Sequence[int], sources: Sequence[SourceSpec]
) -> list[float]:
    """How often each source is trained on in an epoch."""
    repeats = [source.repeat for source in sources]
    weights = [source.weight for source in sources if source.weight is not None]
    if not weights:
        return repeats
    num_characters = stored(train).num_characters
    sizes = [0.0] * len(sources)
    for number, owner in zip(train.numbers, owners, strict=True):
        sizes[owner] += num_characters[number] * repeats[owner]
    scale = min(size / weight for size, weight in zip(sizes, weights, strict=True) if size)
    return [
        repeat * scale * weight / size if size else repeat
        for repeat, weight, size in zip(repeats, weights, sizes, strict=True)
    ]
