"""Conversations -> token ids, with the ranges of tokens that are trained on.

The text of a conversation is tokenised once, and without the tokenizer's own special tokens, as
apply_chat_template
does: the template alone writes bos. Otherwise a template that writes bos would give it twice, and a
model sees at training what it never sees at use. Where no bos is written though the tokenizer
would, quality.json warns.
"""

import re
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.texts import (
    cut_rows,
    has_turns,
    is_text,
    is_tokens,
    text_sample,
    token_row,
)
from components.prepare_dataset.samples.added import Added, add_tokens
from components.prepare_dataset.samples.samples import Sample
from components.prepare_dataset.samples.token_places import PlacedTokenizer, Tokens
from components.prepare_dataset.templates.chat_template import read_template
from components.prepare_dataset.templates.process import BoundedTemplate
from components.shared.errors import DataError, HaganeError, ModelError, all_of, attempt
from components.shared.model.new_tokens import num_embeddings, vocabulary_of
from components.shared.model.source import read_config, read_json_object

# Notes beside those of samples.py.
STARTS_INSIDE = "starts inside a token"
"""A turn begins in the middle of a token, which then also holds the end of its prompt."""
SPECIAL_IN_WORDS = "special token in words"
"""The conversation's own words hold a special token: the tokenizer takes it for the real one."""
UNKNOWN_CHARACTER = "unknown character"

NO_TEMPLATE = "no chat template: texts as they are"

# transformers 5.23, tokenization_utils_base.py, SPECIAL_TOKENS_ATTRIBUTES: the names a template may
# use
_NAMED_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


@dataclass(frozen=True)
class Encoder:
    """All that turns a conversation into tokens."""

    tokenizer: Tokenizer
    tokenizer_file: Path
    template: BoundedTemplate
    end_ids: frozenset[int]
    """Tokens that may end an assistant turn: eos and every special token."""
    vocab_size: int
    """Rows of the model's embedding matrix."""
    text_tokens: int = 1024
    """Most tokens of a row of a text, which is cut there."""
    added: Added | None = None
    """None where nothing is added to the model's tokenizer."""

    @cached_property
    def end_tokens(self) -> tuple[str, ...]:
        """The text of `end_ids`."""
        tokens = self.tokenizer.get_added_tokens_decoder()
        named = (
            tokens[index].content if index in tokens else self.tokenizer.id_to_token(index)
            for index in self.end_ids
        )
        return tuple(sorted(token for token in named if token))

    def samples_of(
        self, conversations: Sequence[Conversation]
    ) -> list[tuple[Sample, ...] | DataError]:
        """For each conversation its texts (samples.py), or why it has none. Raises DataError where
        a limit of rendering is reached."""
        turned = [each for each in conversations if has_turns(each)]
        rendered = iter(self.template.samples(turned, self.end_tokens) if turned else ())
        return [
            next(rendered) if has_turns(each) else self._text_samples(each)
            for each in conversations
        ]

    def _text_samples(self, conversation: Conversation) -> tuple[Sample, ...] | DataError:
        if is_tokens(conversation):
            text = self.tokenizer.decode(
                list(token_row(conversation)[0]), skip_special_tokens=False
            )
            return (Sample(text, ()),)
        special_tokens = self.template.special_tokens
        if special_tokens.get("eos_token") not in self.end_tokens:
            return DataError(
                "the tokenizer names no eos_token to end a text with; name it in "
                "tokenizer_config.json"
            )
        return (text_sample(conversation, special_tokens, begins_with_bos=self._begins_with_bos),)

    @cached_property
    def _begins_with_bos(self) -> bool:
        """Whether the tokenizer by itself puts bos before a text."""
        bos = self.tokenizer.token_to_id(self.template.special_tokens.get("bos_token", ""))
        return bos is not None and self.tokenizer.encode("a", add_special_tokens=True).ids[0] == bos

    @cached_property
    def placed(self) -> PlacedTokenizer:
        return PlacedTokenizer(self.tokenizer)

    @cached_property
    def special_text(self) -> "re.Pattern[str]":
        """Finds the text of any special token; of 250 that begin alike, re looks for their common
        beginning first."""
        special = (
            token.content
            for token in self.tokenizer.get_added_tokens_decoder().values()
            if token.special
        )
        return re.compile("|".join(map(re.escape, sorted(special))) or "(?!)")

    @cached_property
    def has_token_without_embedding(self) -> bool:
        """Whether the tokenizer knows a token that the model has no embedding for."""
        known = self.tokenizer.get_vocab(with_added_tokens=True)
        return max(known.values(), default=0) >= self.vocab_size

    @cached_property
    def unknown_id(self) -> int | None:
        """The token of a character that has none; byte-level tokenizers need none and often name
        their eos so."""
        others = dict(self.template.special_tokens)
        unknown = self.tokenizer.token_to_id(others.pop("unk_token", ""))
        if unknown is None or self.tokenizer.id_to_token(unknown) in others.values():
            return None
        return unknown

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; the rest it makes anew."""
        names = [each.name for each in fields(self)]
        return {name: self.__dict__[name] for name in names}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text of a conversation as tokens: the whole of it, or up to one of its turns
    (samples.py)."""

    source: Conversation
    ids: "array[int]"
    trained: tuple[tuple[int, int], ...]
    """[start, end) in tokens of each assistant turn, its end-of-turn token included."""
    notes: frozenset[str] = frozenset()
    """Of the text, as samples.py names them, and of its tokens, as they are named here."""

    @property
    def num_trained(self) -> int:
        return sum(end - start for start, end in self.trained)


def load_encoder(
    folder: Path,
    chat_template: str,
    *,
    now: datetime,
    template_args: Mapping[str, Any] | None = None,
    needs_template: bool = True,
    new_tokens: tuple[str, ...] = (),
) -> Encoder:
    """The tokenizer of a model's folder and the template that `data.chat_template` chose; an empty
    one where the model brings none and none is needed, as for texts without turns.

    Raises:
        HaganeError: tokenizer, config or template cannot be used; all problems at once.
    """
    errors: list[HaganeError] = []
    tokenizer_file = folder / "tokenizer.json"
    vocab_size = attempt(errors, lambda: _vocab_size(folder))
    tokenizer = attempt(errors, lambda: _read_tokenizer(tokenizer_file))
    added = None
    if tokenizer is not None and new_tokens:
        base = tokenizer
        added = attempt(errors, lambda: add_tokens(base, folder, new_tokens))
    settings = attempt(errors, lambda: read_json_object(folder / "tokenizer_config.json")) or {}
    special_tokens = _special_tokens(folder, settings)
    template = attempt(
        errors,
        lambda: _load_template(
            folder,
            chat_template,
            settings,
            special_tokens,
            now=now,
            arguments=template_args or {},
            needed=needs_template,
        ),
    )
    if vocab_size is None or tokenizer is None or template is None or errors:
        raise all_of(errors)
    if added is not None:
        tokenizer = added.tokenizer
        vocab_size = num_embeddings(vocab_size, added.new_tokens)
    special = {
        index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special
    }
    eos = tokenizer.token_to_id(special_tokens.get("eos_token", ""))
    end_ids = frozenset(special if eos is None else special | {eos})
    return Encoder(tokenizer, tokenizer_file, template, end_ids, vocab_size, added=added)


def _load_template(
    folder: Path,
    chat_template: str,
    settings: dict[str, Any],
    special_tokens: Mapping[str, str],
    *,
    now: datetime,
    arguments: Mapping[str, Any],
    needed: bool,
) -> BoundedTemplate:
    try:
        name, text = read_template(folder, chat_template, settings)
    except ModelError:
        if needed:
            raise
        name, text = NO_TEMPLATE, ""
    template = BoundedTemplate(name, text, special_tokens, now, arguments)
    template.compile()
    return template


def encode(
    encoder: Encoder, conversations: Sequence[Conversation]
) -> tuple[list[Encoded], dict[str, list[str]]]:
    """(tokens of every text that can be trained on, problem -> the places of all that have it)."""
    turned = [each for each in conversations if not is_tokens(each)]
    marked, problems = rendered(encoder, turned)
    texts, spans = [sample.text for _, sample in marked], [sample.spans for _, sample in marked]
    encoded: list[Encoded] = []
    bad: set[int] = set()
    for (conversation, sample), tokens in zip(
        marked, encoder.placed.encode(texts, spans), strict=True
    ):
        problem = _problem(encoder, tokens)
        if problem is not None and id(conversation) not in bad:
            problems[problem].append(conversation.where)
            bad.add(id(conversation))
        if id(conversation) in bad:
            continue
        found = _encoded(encoder, conversation, sample, tokens)
        encoded += _rows_of_text(found, encoder.text_tokens) if is_text(conversation) else [found]
    encoded = [
        each for each in encoded if id(each.source) not in bad
    ]  # of samples before the bad one too
    for conversation in conversations:
        if is_tokens(conversation):
            problem = _row_problem(encoder, conversation)
            if problem is None:
                encoded.append(Encoded(conversation, *token_row(conversation)))
            else:
                problems[problem].append(conversation.where)
    if len(turned) < len(conversations):
        places = {id(conversation): place for place, conversation in enumerate(conversations)}
        encoded.sort(key=lambda each: places[id(each.source)])
    return encoded, problems


def _rows_of_text(encoded: Encoded, most: int) -> list[Encoded]:
    return [
        Encoded(encoded.source, ids, trained, encoded.notes)
        for ids, trained in cut_rows(encoded.ids, most)
    ]


def _row_problem(encoder: Encoder, conversation: Conversation) -> str | None:
    """Why a row that was tokenised elsewhere cannot be trained on, if it cannot."""
    largest = max(token_row(conversation)[0])
    if largest < encoder.vocab_size:
        return None
    return (
        f"input_ids: found {largest}, the model has embeddings 0 to {encoder.vocab_size - 1}; "
        "tokenise with this model's tokenizer"
    )


def rendered(
    encoder: Encoder,
    conversations: Sequence[Conversation],
) -> tuple[list[tuple[Conversation, Sample]], dict[str, list[str]]]:
    """(the texts of all conversations that the template can write as training needs it, problem ->
    the places of the others)."""
    marked: list[tuple[Conversation, Sample]] = []
    problems: dict[str, list[str]] = defaultdict(list)
    for conversation, samples in zip(conversations, encoder.samples_of(conversations), strict=True):
        if is_tokens(conversation):
            row_problem = _row_problem(encoder, conversation)
        else:
            row_problem = None
        if row_problem is not None:
            problems[row_problem].append(conversation.where)
        elif isinstance(samples, DataError):
            problems[str(samples)].append(conversation.where)
        else:
            marked += [(conversation, sample) for sample in samples]
    return marked, problems


def begins_without_bos(encoder: Encoder, text: str) -> bool:
    """Whether the tokenizer by itself would put a token before the text that the template did not
    write."""
    by_itself = encoder.tokenizer.encode(text, add_special_tokens=True).ids
    as_trained = encoder.tokenizer.encode(text, add_special_tokens=False).ids
    return by_itself[:1] != as_trained[:1]


def _encoded(
    encoder: Encoder, conversation: Conversation, sample: Sample, tokens: Tokens
) -> Encoded:
    notes = set(sample.notes)
    if tokens.starts_inside_token:
        notes.add(STARTS_INSIDE)
    if any(encoder.special_text.search(message.content) for message in conversation.messages):
        notes.add(SPECIAL_IN_WORDS)
    if encoder.unknown_id is not None and encoder.unknown_id in tokens.ids:
        notes.add(UNKNOWN_CHARACTER)
    trained = tuple(each for each in tokens.ranges if each is not None)
    return Encoded(conversation, tokens.ids, trained, frozenset(notes))


def _problem(encoder: Encoder, tokens: Tokens) -> str | None:
    """Why these tokens cannot be trained on, if they cannot."""
    for each in tokens.ranges:
        if each is None:
            return (
                f"{encoder.tokenizer_file} tells no offsets for an assistant turn, so it cannot be "
                "masked; take another tokenizer"
            )
        last = tokens.ids[each[1] - 1]
        if last not in encoder.end_ids:
            return (
                f"{encoder.template.name} ends assistant turns without an end-of-turn token, so "
                "the model would never stop; write {{ eos_token }} behind them in a copy of "
                "the template and name it in data.chat_template"
            )
    if not encoder.has_token_without_embedding:
        return None
    largest = max(tokens.ids)
    if largest >= encoder.vocab_size:
        token = encoder.tokenizer.id_to_token(largest)
        return (
            f"token {token!r} has id {largest}, the model only {encoder.vocab_size} embeddings; "
            "take this model's own tokenizer"
        )
    return None


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        found = ", ".join(
            sorted(
                item.name
                for item in path.parent.iterdir()
                if "token" in item.name or item.suffix == ".model"
            )
        )
        raise ModelError(
            f"{path}: no such file (found {found or 'no tokenizer file'}); a fast tokenizer is "
            "needed: load it with AutoTokenizer and save_pretrained it into the folder"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception for every unreadable file
        raise ModelError(
            f"{path}: is no tokenizer of tokenizers 0.23: {' '.join(str(error).split())}"
        ) from None
    tokenizer.no_truncation()  # some files carry settings of the training that made them
    tokenizer.no_padding()
    return tokenizer


def _vocab_size(folder: Path) -> int:
    """Of config.json, or of its text part in models that also see or hear."""
    size = vocabulary_of(read_config(folder))
    if not isinstance(size, int):
        raise ModelError(
            f"{folder / 'config.json'}: vocab_size: found {size!r}, must be the number of "
            "embeddings"
        )
    return size


def _special_tokens(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Named special tokens. As in transformers, an older model's special_tokens_map.json comes
    before tokenizer_config.json."""
    older = folder / "special_tokens_map.json"
    if "added_tokens_decoder" not in settings and older.is_file():
        settings = settings | read_json_object(older)
    tokens = {name: settings[name] for name in _NAMED_TOKENS if settings.get(name)}
    return {
        name: token["content"] if isinstance(token, dict) else str(token)
        for name, token in tokens.items()
    }
