"""Which conversations are kept from training, and which of them training sees all the same."""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow.compute

from components.prepare_dataset.packing.numbers_of import as_arrow
from components.prepare_dataset.packing.stored import Chosen, stored
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.report.quality import NUM_PLACES, Places
from components.shared.errors import DataError

compute: Any = pyarrow.compute  # has no types of its own


@dataclass(frozen=True)
class Split:
    train: Chosen[Conversation]
    held_out: Chosen[Conversation]
    by: str
    """`prompt` or `conversation`: what decided, which is the conversation where too few questions
    differ; `nothing` for a share of 0."""


def set_aside(conversations: Chosen[Conversation], share: float, *, by: str = "prompt") -> Split:
    """A sha256 decides for each conversation, so that it stays where it is when others come or go.

    The hash is of the conversation, or by `prompt` of its first question; held out are those whose
    hash, as a fraction of its range, is below `share`, or those with the least hash where none is.
    By `prompt`, where one question has more than twice the share of all conversations or nothing
    would be left to train on, the conversation decides. A share of 0 holds out nothing.

    Raises:
        DataError: nothing would be left to train on.
    """
    if not share:
        return Split(conversations, conversations.of(()), by="nothing")
    kept = stored(conversations)
    if by == "prompt":
        train, held_out = _split(conversations, share, kept.questions)
        most = max(1, math.ceil(2 * share * len(conversations)))
        asked = Counter(kept.questions[number] for number in held_out.numbers)
        if train and max(asked.values()) <= most:
            return Split(train, held_out, by="prompt")
    train, held_out = _split(conversations, share, kept.digests)
    if not train:
        raise DataError(
            f"data.held_out_share: {share} of {len(conversations)} conversations (copies count as "
            "one) leaves none to train on; add conversations or set data.held_out to a file of "
            "its own"
        )
    return Split(train, held_out, by="conversation")


def _split(
    conversations: Chosen[Conversation],
    share: float,
    hashes: Sequence[int],
) -> tuple[Chosen[Conversation], Chosen[Conversation]]:
    numbers = conversations.numbers
    limit = max(share * 2.0**64, min(hashes[number] for number in numbers) + 1)
    train = array("I", (number for number in numbers if hashes[number] >= limit))
    held_out = array("I", (number for number in numbers if hashes[number] < limit))
    return conversations.of(train), conversations.of(held_out)


def copies(conversations: Chosen[Conversation]) -> Places:
    """Where the same conversation stands more than once: the first places of each. `repeat` of a
    source makes no copies."""
    kept = stored(conversations)
    several = repeated(
        lambda: (kept.digests[number] for number, _ in groupby(conversations.numbers))
    )
    shown = {digest: list[str]() for digest in several[:NUM_PLACES]}
    for number, _ in groupby(conversations.numbers) if shown else ():
        found = shown.get(kept.digests[number])
        if found is not None and len(found) < NUM_PLACES:
            found.append(kept[number].where)
    return Places(count=len(several), first=tuple(map(tuple, shown.values())))


def repeated(values: Callable[[], Iterable[int]]) -> "array[int]":
    """The hashes that are among these more than once, in the order of their first. They are counted
    a sixteenth at a time, which takes as little memory."""
    several: set[int] = set()
    for part in range(16):
        some = array("Q", (value for value in values() if value >> 60 == part))
        counted = compute.value_counts(as_arrow(some))
        is_repeated = compute.greater(counted.field("counts"), 1)
        several.update(counted.field("values").filter(is_repeated).to_pylist())
    return array("Q", dict.fromkeys(value for value in values() if value in several))


def leaks(train: Chosen[Conversation], held_out: Chosen[Conversation]) -> Places:
    """(place in train, place in held-out data) of held-out conversations that are trained on."""
    return _in_both(train, held_out, stored(train).digests)


def asked_in_both(train: Chosen[Conversation], held_out: Chosen[Conversation]) -> Places:
    """(place in train, place in held-out data) of held-out conversations whose first question is
    trained on."""
    return _in_both(train, held_out, stored(train).questions)


def _in_both(
    train: Chosen[Conversation], held_out: Chosen[Conversation], hashes: Sequence[int]
) -> Places:
    """Of equal ones in train, the last. Both are kept in one place."""
    asked = {hashes[number] for number in held_out.numbers}
    trained = {hashes[number]: number for number in train.numbers if hashes[number] in asked}
    both = [number for number in held_out.numbers if hashes[number] in trained]
    pairs = ((trained[hashes[number]], number) for number in both[:NUM_PLACES])
    return Places(
        count=len(both),
        first=tuple((train.items[one].where, train.items[other].where) for one, other in pairs),
    )
