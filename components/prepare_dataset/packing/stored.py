"""Conversations and their tokens, kept on disk, and beside them the numbers that rows are decided
by."""

import io
import pickle
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Generic, TypeVar, cast, overload

from components.prepare_dataset.packing.spool import Numbers, Spool
from components.prepare_dataset.records.conversations import Conversation, Message
from components.prepare_dataset.records.texts import (
    TEXT,
    TOKENS,
    has_turns,
    is_text,
    num_characters,
)
from components.prepare_dataset.samples.tokens import Encoded

Item = TypeVar("Item", bound="Conversation | Encoded")
_MOST_COUNTED = 255


class Conversations(Sequence[Conversation]):
    """In the order in which they were read."""

    def __init__(self) -> None:
        self.spool = Spool()
        self.digests = Numbers("Q")
        """First 8 bytes of each one's digest, as a number: equal ones say the same, but for one
        pair in 10^9 of 10^5."""
        self.questions = Numbers("Q")
        """The same of the first question."""
        self.num_characters = Numbers("Q")
        self.num_empty_system = Numbers("B")
        self.is_text = Numbers("B")
        """1 of a text, which is cut where it is longer than a row, 0 of others."""
        self.unread: set[str] = set()
        """Keys of turns that nothing reads, of all conversations."""
        self.roles: Counter[str] = Counter()
        """Turns of each role."""
        self.num_with_tools = self.num_with_reasoning = self.num_not_trained = 0
        """Conversations with tools, turns with reasoning, assistant turns that are not trained
        on."""

    def append(self, each: Conversation) -> None:
        self.spool.append(_packed(each))
        self.digests.append(_place(each.digest))
        self.questions.append(_place(each.question))
        self.num_characters.append(num_characters(each))
        self.num_empty_system.append(min(each.num_empty_system, _MOST_COUNTED))
        self.is_text.append(is_text(each))
        self.unread.update(each.unread)
        self.num_with_tools += each.tools is not None
        for message in each.messages:
            self.roles[message.role] += 1
            self.num_with_reasoning += bool(message.reasoning) or "</think>" in message.content
            self.num_not_trained += message.role == "assistant" and not message.trained

    def __len__(self) -> int:
        return len(self.spool)

    @property
    def has_turns(self) -> bool:
        """Whether any record has turns, for which a chat template is needed."""
        return not self.roles.keys() <= {TEXT, TOKENS}

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> "Chosen[Conversation]": ...
    def __getitem__(self, index: int | slice) -> "Conversation | Chosen[Conversation]":
        if isinstance(index, slice):
            return Chosen(self, range(len(self))[index])
        (found,) = unpacked(self.spool[index])
        return found


class Samples(Sequence[Encoded]):
    """Encoded conversations, each in the order of its samples, conversations in theirs."""

    def __init__(self, conversations: Conversations) -> None:
        self.conversations = conversations
        self._spool = Spool()
        self.sources = Numbers("I")
        """Number of each one's conversation."""
        self.lengths = Numbers("I")
        """In tokens."""
        self.num_trained = Numbers("I")
        self._firsts = Numbers("I")
        """Of each conversation the number of its first sample, up to the last that has one."""
        self._notes = Numbers("H")
        self._sets_of_notes: dict[frozenset[str], int] = {}
        self.ends: set[int] = set()
        """Tokens by which trained turns of conversations end."""
        self.skipped: Mapping[str, list[str]] = {}
        """Problem -> places of the records that have no sample, of those that were left out when
        they were read too."""

    def append(self, source: int, encoded: "PackedSample") -> None:
        while len(self._firsts) <= source:
            self._firsts.append(len(self))
        self._spool.append(encoded.content)
        self.sources.append(source)
        self.lengths.append(encoded.length)
        self.num_trained.append(encoded.num_trained)
        self._notes.append(self._sets_of_notes.setdefault(encoded.notes, len(self._sets_of_notes)))
        self.ends |= encoded.ends

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> "Chosen[Encoded]": ...
    def __getitem__(self, index: int | slice) -> "Encoded | Chosen[Encoded]":
        if isinstance(index, slice):
            return Chosen(self, range(len(self))[index])
        ids, trained = self.tokens(index)
        return Encoded(self.conversations[self.sources[index]], ids, trained, self.notes(index))

    def tokens(self, index: int) -> "tuple[array[int], tuple[tuple[int, int], ...]]":
        """Token ids, and [start, end) of what is trained on."""
        content = array("i", self._spool[index])
        ids, spans = content[: self.lengths[index]], content[self.lengths[index] :]
        return ids, tuple(zip(spans[::2], spans[1::2], strict=True))

    def of_conversation(self, number: int) -> range:
        """Numbers of its samples, where those of all conversations were added in their order."""
        start, stop = (
            self._firsts[each] if each < len(self._firsts) else len(self)
            for each in (number, number + 1)
        )
        return range(start, stop)

    def notes(self, index: int) -> frozenset[str]:
        return list(self._sets_of_notes)[self._notes[index]]

    def where(self, index: int) -> str:
        """`file:line` of its conversation."""
        return self.conversations[self.sources[index]].where

    def noted(self, numbers: Iterable[int]) -> dict[str, tuple[int, int]]:
        """Note -> how many of these samples have it, and the first of them."""
        sets = list(self._sets_of_notes)
        counts: Counter[int] = Counter()
        first: dict[str, int] = {}
        for number in numbers:
            kind = self._notes[number]
            if kind not in counts:
                for note in sets[kind]:
                    first.setdefault(note, number)
            counts[kind] += 1
        return {
            note: (sum(count for kind, count in counts.items() if note in sets[kind]), place)
            for note, place in first.items()
        }


class Chosen(Sequence[Item], Generic[Item]):
    """Some of the conversations or samples, by their numbers, in that order; one may be chosen more
    than once."""

    def __init__(self, items: Sequence[Item], numbers: Sequence[int]) -> None:
        self.items, self.numbers = items, numbers

    def of(self, numbers: Sequence[int]) -> "Chosen[Item]":
        """Others of the same items."""
        return Chosen(self.items, numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> "Chosen[Item]": ...
    def __getitem__(self, index: int | slice) -> "Item | Chosen[Item]":
        if isinstance(index, slice):
            return self.of(self.numbers[index])
        return self.items[self.numbers[index]]

    def __iter__(self) -> Iterator[Item]:
        return (self.items[number] for number in self.numbers)


def stored(conversations: Chosen[Conversation]) -> Conversations:
    """Where these are kept."""
    return cast(Conversations, conversations.items)


def stored_samples(samples: Chosen[Encoded]) -> Samples:
    """Where these are kept."""
    return cast(Samples, samples.items)


def samples_in(encoded: Samples, conversations: Chosen[Conversation]) -> Chosen[Encoded]:
    """The samples of these conversations, in their order."""
    numbers = chain.from_iterable(map(encoded.of_conversation, conversations.numbers))
    return Chosen(encoded, array("I", numbers))


def split_by_length(
    samples: Chosen[Encoded], row_tokens: int
) -> tuple[Chosen[Encoded], Chosen[Encoded]]:
    """(those that fit a row, those that do not)."""
    lengths = stored_samples(samples).lengths
    kept = array("I", (number for number in samples.numbers if lengths[number] <= row_tokens))
    dropped = array("I", (number for number in samples.numbers if lengths[number] > row_tokens))
    return samples.of(kept), samples.of(dropped)


def lengths_of(samples: Chosen[Encoded]) -> "array[int]":
    """In tokens."""
    lengths = stored_samples(samples).lengths
    return array("I", (lengths[number] for number in samples.numbers))


def length_counts(samples: Chosen[Encoded]) -> Counter[int]:
    """Length in tokens -> how many samples have it."""
    lengths = stored_samples(samples).lengths
    return Counter(lengths[number] for number in samples.numbers)


class PackedSample:
    """A sample as processes hand it on and as it is kept: token ids, then the spans, 4 bytes a
    number."""

    __slots__ = ("content", "ends", "length", "notes", "num_trained")

    def __init__(self, encoded: Encoded) -> None:
        spans = array("i", (place for span in encoded.trained for place in span))
        self.content = encoded.ids.tobytes() + spans.tobytes()
        self.length = len(encoded.ids)
        self.num_trained = encoded.num_trained
        self.notes = encoded.notes
        if has_turns(encoded.source):
            turns = encoded.trained
        else:
            turns = ()
        self.ends = frozenset(encoded.ids[end - 1] for _, end in turns)


def unpacked(content: bytes) -> Iterator[Conversation]:
    """The conversations whose packed forms these are, one behind the other. Only of bytes that this
    program packed."""
    stream = io.BytesIO(content)
    while stream.tell() < len(content):
        where, said, digest, tools, num_empty_system, unread = pickle.load(stream)  # noqa: S301
        yield Conversation(
            where, tuple(Message(*each) for each in said), digest, tools, num_empty_system, unread
        )


def _packed(each: Conversation) -> bytes:
    said = [
        (message.role, message.content, message.trained, message.fields)
        for message in each.messages
    ]
    return pickle.dumps(
        (each.where, said, each.digest, each.tools, each.num_empty_system, each.unread), protocol=5
    )


def _place(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
