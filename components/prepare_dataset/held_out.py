"""Which conversations are kept from training, and which of them training sees all the same."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from components.prepare_dataset.conversations import Conversation
from components.shared.errors import DataError


@dataclass(frozen=True)
class Split:
    train: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]
    by: str
    """`prompt` or `conversation`: what decided, which is the conversation where too few questions differ."""


def set_aside(conversations: tuple[Conversation, ...], share: float, *, by: str = "prompt") -> Split:
    """A sha256 decides for each conversation, so that it stays where it is when others come or go.

    The hash is of the conversation, or by `prompt` of its first question; held out are those whose hash, as a fraction
    of its range, is below `share`, or those with the least hash where none is. By `prompt`, where one question has more
    than twice the share of all conversations or nothing would be left to train on, the conversation decides.

    Raises:
        DataError: nothing would be left to train on.
    """
    if by == "prompt":
        split = _split(conversations, share, [_place(each.question) for each in conversations])
        most = max(1, math.ceil(2 * share * len(conversations)))
        asked = Counter(each.question for each in split[1])
        if split[0] and max(asked.values()) <= most:
            return Split(*split, by="prompt")
    train, held_out = _split(conversations, share, [_place(each.digest) for each in conversations])
    if not train:
        raise DataError(
            f"data.held_out_share: {share} of {len(conversations)} conversations (copies count as one) leaves none to train on; "
            "add conversations or set data.held_out to a file of its own"
        )
    return Split(train, held_out, by="conversation")


def _split(
    conversations: tuple[Conversation, ...],
    share: float,
    hashes: list[int],
) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
    limit = max(share * 2.0**64, min(hashes) + 1)
    train = tuple(each for each, place in zip(conversations, hashes, strict=True) if place >= limit)
    held_out = tuple(each for each, place in zip(conversations, hashes, strict=True) if place < limit)
    return train, held_out


def copies(conversations: Iterable[Conversation]) -> list[tuple[str, ...]]:
    """Where the same conversation stands more than once: the places of each, in order. `repeat` of a source makes no copies."""
    places: dict[bytes, dict[int, str]] = defaultdict(dict)
    for conversation in conversations:
        places[conversation.digest][id(conversation)] = conversation.where
    return [tuple(found.values()) for found in places.values() if len(found) > 1]


def leaks(train: Iterable[Conversation], held_out: Iterable[Conversation]) -> list[tuple[str, str]]:
    """(place in train, place in held-out data) of every held-out conversation that is trained on."""
    trained = {conversation.digest: conversation.where for conversation in train}
    return [(trained[found.digest], found.where) for found in held_out if found.digest in trained]


def asked_in_both(train: Iterable[Conversation], held_out: Iterable[Conversation]) -> list[tuple[str, str]]:
    """(place in train, place in held-out data) of every held-out conversation whose first question is trained on."""
    trained = {conversation.question: conversation.where for conversation in train}
    return [(trained[each.question], each.where) for each in held_out if each.question in trained]


def _place(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
