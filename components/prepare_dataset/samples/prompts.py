"""Held-out conversations -> prompts.json: a few of different lengths, by which training and export
are compared later."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from components.prepare_dataset.packing.stored import Chosen, stored
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.texts import has_turns
from components.prepare_dataset.samples.tokens import Encoded, Encoder, encode
from components.prepare_dataset.source import Source
from components.prepare_dataset.templates.chat_template import turns_of
from components.shared.documents.prompts import (
    NUM_PROMPTS,
    PROBE_TOKENS,
    PROMPTS,
    Prompt,
    Prompts,
    base_files,
)
from components.shared.errors import DataError

Item = TypeVar("Item")
_TEXT_CHARACTERS = 500

NUM_CANDIDATES = 16
"""Conversations that are tokenised to choose from."""


def write_prompts(source: Source, folder: Path, *, row_tokens: int) -> None:
    """prompts.json is in the folder, and names at least one conversation that fits a row."""
    encoder, records = source.model.encoder, source.records
    chosen = chosen_conversations(encoder, records.held_out, row_tokens=row_tokens)
    if not chosen:  # nothing is held out, or no held-out record can be trained on
        chosen = chosen_conversations(encoder, records.train, row_tokens=row_tokens)
    added = encoder.added
    prompts = Prompts(
        chat_template=encoder.template.text,
        template_args=dict(encoder.template.arguments),
        end_token_ids=_end_token_ids(encoder, chosen),
        base_files=base_files(source.model.resolved.folder),
        new_tokens=() if added is None else added.new_tokens,
        tokenizer_sha256=None if added is None else added.sha256,
        prompts=tuple(prompt_of(encoder, each) for each in chosen),
    )
    (folder / PROMPTS).write_text(prompts.model_dump_json(indent=1) + "\n", encoding="utf-8")


def chosen_conversations(
    encoder: Encoder, conversations: Chosen[Conversation], *, row_tokens: int
) -> list[Encoded]:
    """Up to four that fit a row, from the shortest to the longest of those looked at."""
    num_characters = stored(conversations).num_characters
    once = dict.fromkeys(conversations.numbers)  # a source with `repeat` has each several times
    by_length = conversations.of(sorted(once, key=num_characters.__getitem__))
    candidates = spread(by_length, NUM_CANDIDATES)
    fitting = _fitting(encoder, candidates, row_tokens) or _fitting(encoder, by_length, row_tokens)
    return spread(sorted(fitting, key=lambda each: len(each.ids)), NUM_PROMPTS)


def _end_token_ids(encoder: Encoder, chosen: Sequence[Encoded]) -> tuple[int, ...]:
    """By which turns and texts end."""
    ends = {
        each.ids[end - 1] for each in chosen if has_turns(each.source) for _, end in each.trained
    }
    eos = encoder.tokenizer.token_to_id(encoder.template.special_tokens.get("eos_token", ""))
    if eos is not None and not all(has_turns(each.source) for each in chosen):
        ends.add(eos)
    return tuple(sorted(ends))


def _beginning(encoder: Encoder, encoded: Encoded) -> Prompt:
    """The first words of a text, or of a row that was tokenised elsewhere, as this tokenizer writes
    them."""
    (samples,) = encoder.samples_of([encoded.source])
    assert not isinstance(samples, DataError)  # it was encoded
    text = samples[0].text[:_TEXT_CHARACTERS]
    ids = encoder.tokenizer.encode(text, add_special_tokens=False).ids
    return Prompt(
        text=text, token_ids=tuple(ids), probe_length=min(len(ids), PROBE_TOKENS), ends_turn=False
    )


def prompt_of(encoder: Encoder, encoded: Encoded) -> Prompt:
    """The text, cut for the model behind the last trained turn that ends within PROBE_TOKENS."""
    if not has_turns(encoded.source):
        return _beginning(encoder, encoded)
    ends = [end for _, end in encoded.trained if end <= PROBE_TOKENS]
    text, source, template = _text_of(encoder, encoded), encoded.source, encoder.template
    whole = template.render(source.messages, tools=source.tools) == text
    return Prompt(
        messages=tuple(turns_of(template.text, source.messages)) if whole else (),
        tools=None if source.tools is None else tuple(source.tools),
        text=text,
        token_ids=tuple(encoded.ids),
        probe_length=max(ends, default=min(len(encoded.ids), PROBE_TOKENS)),
        ends_turn=bool(ends),
    )


def _text_of(encoder: Encoder, encoded: Encoded) -> str:
    """The text of the conversation, or of its part, that has these token ids."""
    (samples,) = encoder.samples_of([encoded.source])
    assert not isinstance(samples, DataError)  # it was encoded
    texts = [each.text for each in samples]
    found = [
        text
        for text in texts
        if encoder.tokenizer.encode(text, add_special_tokens=False).ids == list(encoded.ids)
    ]
    return found[0]


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[index * (len(items) - 1) // (most - 1)] for index in range(most)]


def _fitting(
    encoder: Encoder, conversations: Sequence[Conversation], row_tokens: int
) -> list[Encoded]:
    """The samples that fit a row, of the first conversations that have 16 such or of all."""
    fitting: list[Encoded] = []
    for start in range(0, len(conversations), NUM_CANDIDATES):
        encoded, _ = encode(
            encoder, list(conversations[start : start + NUM_CANDIDATES])
        )  # kept on disk, each look is another object
        fitting += [each for each in encoded if len(each.ids) <= row_tokens]
        if len(fitting) >= NUM_CANDIDATES:
            break
    return fitting
