"""Which conversations are kept from training, and which of them training sees all the same."""

from collections import defaultdict
from collections.abc import Iterable

from components.prepare_dataset.records import Conversation
from components.shared.errors import DataError


def set_aside(conversations: tuple[Conversation, ...], share: float) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
    """(train, held out): each conversation's own sha256 decides, so that it stays where it is when others come or go.

    Held out are those whose hash, as a fraction of its range, is below `share`, or the one with the least hash where
    none is. Equal conversations go the same way.

    Raises:
        DataError: nothing would be left to train on.
    """
    limit = max(share * 2.0**64, min(_place(conversation) for conversation in conversations) + 1)
    held_out = tuple(conversation for conversation in conversations if _place(conversation) < limit)
    train = tuple(conversation for conversation in conversations if _place(conversation) >= limit)
    if not train:
        raise DataError(
            f"data.held_out_share: {share} of {len(conversations)} conversations (copies count as one) leaves none to train on; "
            "add conversations or set data.held_out to a file of its own"
        )
    return train, held_out


def copies(conversations: Iterable[Conversation]) -> list[tuple[str, ...]]:
    """Where the same conversation stands more than once: the places of each, in order."""
    places: dict[bytes, list[str]] = defaultdict(list)
    for conversation in conversations:
        places[conversation.digest].append(conversation.where)
    return [tuple(found) for found in places.values() if len(found) > 1]


def leaks(train: Iterable[Conversation], held_out: Iterable[Conversation]) -> list[tuple[str, str]]:
    """(place in train, place in held-out data) of every held-out conversation that is trained on."""
    trained = {conversation.digest: conversation.where for conversation in train}
    return [(trained[found.digest], found.where) for found in held_out if found.digest in trained]


def _place(conversation: Conversation) -> int:
    return int.from_bytes(conversation.digest[:8], "big")
