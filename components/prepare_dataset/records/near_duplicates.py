"""Samples whose trained tokens are nearly those of another one, found by MinHash.

MinHash (Broder, "On the resemblance and containment of documents", 1997) estimates which share of two sets is in both; here
the sets are runs of three trained tokens. What is only read, such as a system turn that all conversations share, does not
count. rensa does it in Rust: 20,000 samples take about 2 s and 20 MB. Of more, that number is chosen by a hash.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import rensa

from components.prepare_dataset.packing.stored import Chosen, Samples, stored_samples
from components.prepare_dataset.report.quality import NUM_PLACES, Places
from components.prepare_dataset.samples.tokens import Encoded

minhash: Any = rensa  # has no types of its own

SIMILARITY = 0.8
"""Share of runs in both, from which on two samples are near duplicates; as in NeMo Curator's and datatrove's examples."""
MOST_SAMPLES = 20_000
LEAST_TRAINED = 20
"""Trained tokens: many short answers are rightly alike."""

_RUN_TOKENS = 3
_TOKEN_BYTES = 4
_SLOTS, _SEED = 128, 42
"""Of a signature: the estimate is off by about 0.035 (a standard deviation) at a similarity of 0.8."""
_SPREAD = 0xBF58476D1CE4E5B9
"""An odd number (of java.util.SplittableRandom's mix64), by which a product modulo 2^64 is another hash than the one by which a
mixture takes a part of a source (mixture.py)."""


@dataclass(frozen=True)
class NearDuplicates:
    num_compared: int
    train: Places
    """(place, place of another that it is nearly like), both trained on; equal conversations are not counted."""
    held_out: Places
    """(place in held-out data, place in train)."""


def near_duplicates(train: Chosen[Encoded], held_out: Chosen[Encoded], *, most: int = MOST_SAMPLES) -> NearDuplicates:
    """Of samples with at least 20 trained tokens. The same samples are chosen every time."""
    samples = stored_samples(train)
    share = most / max(1, len(train) + len(held_out))
    known = minhash.RMinHashDeduplicator(threshold=SIMILARITY, num_perm=_SLOTS, use_lsh=True)
    compared: list[int] = []
    found: list[list[tuple[int, int]]] = []
    for part in (train, held_out):
        chosen = list(_chosen(samples, part.numbers, share))
        compared += chosen
        found.append(list(_alike(samples, chosen, known, add=part is train)))
    return NearDuplicates(len(compared), *(_places(samples, pairs) for pairs in found))


def _chosen(samples: Samples, numbers: Sequence[int], share: float) -> Iterator[int]:
    digests = samples.conversations.digests
    limit = share * 2.0**64
    for number, _ in groupby(numbers):  # a source with `repeat` has each several times
        if samples.num_trained[number] >= LEAST_TRAINED and digests[samples.sources[number]] * _SPREAD % 2**64 < limit:
            yield number


def _alike(samples: Samples, numbers: Iterable[int], known: Any, *, add: bool) -> Iterator[tuple[int, int]]:
    """(a sample, one before it of another conversation that it is nearly like)."""
    digests, sources = samples.conversations.digests, samples.sources
    for number in numbers:
        signature = minhash.RMinHash(_SLOTS, _SEED)
        signature.update(list(_runs(samples, number)))
        others = [int(key) for key in known.get_duplicates(signature)]
        if others and all(digests[sources[other]] != digests[sources[number]] for other in others):
            yield number, min(others)
        if add and not others:
            known.add(str(number), signature)


def _runs(samples: Samples, number: int) -> Iterator[bytes]:
    """Each run of three trained tokens, as bytes."""
    ids, spans = samples.tokens(number)
    trained = array("i")
    for start, end in spans:
        trained.extend(ids[start:end])
    content = trained.tobytes()
    size = _RUN_TOKENS * _TOKEN_BYTES
    return (content[place : place + size] for place in range(0, len(content) - size + 1, _TOKEN_BYTES))


def _places(samples: Samples, pairs: Sequence[tuple[int, int]]) -> Places:
    first = tuple((samples.where(one), samples.where(other)) for one, other in pairs[:NUM_PLACES])
    return Places(count=len(pairs), first=first)
