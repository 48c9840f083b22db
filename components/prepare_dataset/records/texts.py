"""Records without turns: a text, for continued pretraining, or a row that was tokenised elsewhere
-> what is trained on.

A text is trained on token by token, from its first word to the end token behind it. One that is
longer than a row is cut at the row's border; the next row begins with the last token of the one
before, which is read and not trained on, so that every token is trained on once, behind a token of
its own text.
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.prepare_dataset.records.conversations import (
    Conversation,
    Message,
    has_half_pair,
    kind_of,
)
from components.prepare_dataset.samples.samples import Sample

TEXT, TOKENS = "text", "tokens"
"""In place of a role: what the only message of such a record is."""

MOST_BYTES = 8_000_000
"""Of one text in UTF-8: tokenizers needs about 100 bytes of memory for each byte."""
NOT_TRAINED = -100
"""The label of a token that is not trained on, as in torch.nn.CrossEntropyLoss."""
CHARACTERS_A_TOKEN = 3
"""By which a row of tokens counts where sources are weighed by their text."""


def text_conversation(where: str, text: Any) -> Conversation | list[str]:
    """The text as a record to train on, or what is wrong with it."""
    if not isinstance(text, str):
        return [f"text: found {kind_of(text)}, must be text"]
    if not text.strip():
        return ["text: is empty; write it or remove the record"]
    if has_half_pair(text):
        return [
            (
                "text: holds half a surrogate pair (\\ud800 to \\udfff), which is no text; correct "
                "the escape"
            )
        ]
    content = text.encode()
    if len(content) > MOST_BYTES:
        return [
            (
                f"text: has {len(content):,} bytes in UTF-8, allowed are {MOST_BYTES:,} in one "
                "record; cut it into several"
            )
        ]
    digest = hashlib.sha256(TEXT.encode() + b"\0" + content).digest()
    return Conversation(where, (Message(TEXT, text),), digest)


def tokens_conversation(where: str, ids: Any, labels: Any, mask: Any) -> Conversation | list[str]:
    """The row as a record to train on, or what is wrong with it. Tokens with attention_mask 0 are
    padding, and left out."""
    columns = {"input_ids": ids, "labels": ids if labels is None else labels}
    if mask is not None:
        columns["attention_mask"] = mask
    problems = [
        f"{name}: found {_kind_of_row(row)}, must be a list of whole numbers"
        for name, row in columns.items()
        if not _is_row(row)
    ]
    if problems:
        return problems
    if min(ids) < 0:
        return [f"input_ids: found {min(ids)}, must be 0 or more"]
    if len({len(row) for row in columns.values()}) > 1:
        found = ", ".join(f"{len(row)} {name}" for name, row in columns.items())
        return [f"input_ids: found {found}, must be equally many"]
    kept = [place for place in range(len(ids)) if mask is None or mask[place]]
    tokens = array("i", (ids[place] for place in kept))
    trained = array("i", (columns["labels"][place] for place in kept))
    wrong = next(
        (
            label
            for token, label in zip(tokens, trained, strict=True)
            if label not in (token, NOT_TRAINED)
        ),
        None,
    )
    if wrong is not None:
        return [
            (
                f"labels: found {wrong}, allowed: the token's own id, or {NOT_TRAINED} where it is "
                "not trained on"
            )
        ]
    if not any(label != NOT_TRAINED for label in trained[1:]):
        return [f"labels: every token has {NOT_TRAINED}, so nothing to learn; remove the record"]
    fields = {"input_ids": tokens.tobytes(), "labels": trained.tobytes()}
    digest = hashlib.sha256(fields["input_ids"] + b"\0" + fields["labels"]).digest()
    return Conversation(where, (Message(TOKENS, "", fields=fields),), digest)


def is_text(conversation: Conversation) -> bool:
    return conversation.messages[0].role == TEXT


def is_tokens(conversation: Conversation) -> bool:
    return conversation.messages[0].role == TOKENS


def has_turns(conversation: Conversation) -> bool:
    return not (is_text(conversation) or is_tokens(conversation))


def num_characters(conversation: Conversation) -> int:
    """Of all that is said; of a row of tokens, about."""
    if is_tokens(conversation):
        return CHARACTERS_A_TOKEN * len(token_row(conversation)[0])
    return sum(len(message.content) for message in conversation.messages)


def token_row(conversation: Conversation) -> "tuple[array[int], tuple[tuple[int, int], ...]]":
    """Token ids, and [start, end) of what is trained on; nothing predicts the first token."""
    fields: Mapping[str, bytes] = conversation.messages[0].fields or {}
    ids, labels = array("i", fields["input_ids"]), array("i", fields["labels"])
    return ids, tuple(_spans(labels))


def text_sample(
    conversation: Conversation, special_tokens: Mapping[str, str], *, begins_with_bos: bool
) -> Sample:
    """The text between the tokens that the model begins and ends a text with."""
    if begins_with_bos:
        bos = special_tokens["bos_token"]
    else:
        bos = ""
    text = f"{bos}{conversation.messages[0].content}{special_tokens['eos_token']}"
    return Sample(text, ((len(bos), len(text)),))


def cut_rows(
    ids: "array[int]", most: int
) -> "Iterator[tuple[array[int], tuple[tuple[int, int], ...]]]":
    """The tokens of a text in rows of at most `most`, each with what is trained on: all but its
    first token."""
    for start in range(0, max(1, len(ids) - 1), most - 1):
        part = ids[start : start + most]
        if len(part) > 1:
            yield part, ((1, len(part)),)


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list)
        and bool(row)
        and all(type(each) is int and -(2**31) <= each < 2**31 for each in row)
    )


def _kind_of_row(row: Any) -> str:
    if isinstance(row, list) and row:
        return "a list of something else"
    return kind_of(row)


def _spans(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    start: int | None = None
    for place in range(1, len(labels)):
        trained = labels[place] != NOT_TRAINED
        if trained and start is None:
            start = place
        if not trained and start is not None:
            yield start, place
            start = None
    if start is not None:
        yield start, len(labels)
