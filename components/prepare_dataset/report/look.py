"""Conversations, and with a model their tokens -> lines of text that say what the data is before a run is paid for."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from components.prepare_dataset.assemble import Progress, encode_all, no_progress, row_of_used, used_samples
from components.prepare_dataset.packing.stored import (
    Chosen,
    Conversations,
    Samples,
    lengths_of,
    samples_in,
    split_by_length,
    stored,
    stored_samples,
)
from components.prepare_dataset.readers.bad_records import skipped_cautions
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.held_out import copies, leaks, repeated
from components.prepare_dataset.records.near_duplicates import near_duplicates
from components.prepare_dataset.records.records import RecordFile
from components.prepare_dataset.records.texts import is_tokens, token_row
from components.prepare_dataset.report.cautions import data_cautions, dropped_cautions, near_cautions, token_cautions
from components.prepare_dataset.report.quality import row_sizes
from components.prepare_dataset.report.shown_samples import ShownSample, ShownToken, shown_samples
from components.prepare_dataset.samples.tokens import Encoded
from components.prepare_dataset.source import Source
from components.shared.log import JSON_MARK
from components.shared.spec.run_spec import DataSpec

_SHOWN_CHARACTERS = 1500


def file_lines(file: RecordFile) -> Iterator[str]:
    """What a file of records is: nothing of a model is needed."""
    conversations = stored(file.conversations)
    yield f"form            {file.form}"
    yield from _conversation_lines(conversations)
    yield ""
    yield "The first conversation:"
    yield from _turn_lines(conversations[0])
    longest = max(range(len(conversations)), key=conversations.num_characters.__getitem__)
    if longest:
        yield ""
        yield f"The longest conversation, {conversations[longest].where}:"
        yield from _turn_lines(conversations[longest])


def dataset_lines(source: Source, data: DataSpec, *, progress: Progress = no_progress) -> Iterator[str]:
    """What a spec's data is, as its model reads it. Raises DataError where it cannot be trained on."""
    records, encoder = source.records, source.model.encoder
    encoded = encode_all(data, encoder, records, progress=progress)
    samples = used_samples(records, encoded)
    row = row_of_used(data, source, encoded, samples)
    row_tokens = row.tokens
    yield f"form            {', '.join(dict.fromkeys(records.forms))}"
    yield f"template        {encoder.template.name}"
    yield from (f"source          {line}" for line in records.uses)
    yield from _conversation_lines(stored(records.train))
    yield f"held out        {len(records.held_out):,} conversations"
    yield f"row_tokens      {row_tokens:,}: {row.reason}"
    yield from _length_lines(samples, row_tokens)
    warnings = [*skipped_cautions(encoded.skipped), *_warnings(source, encoded, samples, row_tokens)]
    yield from ("", *(f"warning: {line}" for line in warnings)) if warnings else ()
    kept, dropped = split_by_length(samples, row_tokens)
    for sample in shown_samples(encoder.tokenizer, kept or dropped, dropped.numbers):
        yield ""
        yield f"The {sample.name}, {sample.where}, {sample.num_tokens:,} tokens, {sample.num_trained:,} trained on (between ⟦ and ⟧):"
        yield from _sample_lines(sample)


def _conversation_lines(conversations: Conversations) -> Iterator[str]:
    asked = set(repeated(conversations.questions))
    again = sum(question in asked for question in conversations.questions)
    characters = conversations.num_characters
    half = sorted(characters)[len(characters) // 2]
    yield f"conversations   {len(conversations):,}"
    yield f"turns           {', '.join(f'{count:,} {role}' for role, count in conversations.roles.most_common())}"
    yield f"with tools      {conversations.num_with_tools:,} conversations"
    yield f"with reasoning  {conversations.num_with_reasoning:,} turns"
    yield f"not trained on  {conversations.num_not_trained:,} assistant turns"
    yield f"copies          {copies(conversations[:]).count:,} conversations stand more than once"
    different = len(conversations) - again + len(asked)
    yield f"questions       {different:,} different first ones; {again:,} conversations share theirs with another"
    yield f"characters      {min(characters):,} to {max(characters):,}, half of the conversations up to {half:,}"


def _length_lines(samples: Chosen[Encoded], row_tokens: int) -> Iterator[str]:
    lengths = lengths_of(samples)
    num_trained = stored_samples(samples).num_trained
    trained = sum(num_trained[number] for number in samples.numbers)
    yield f"tokens          {sum(lengths):,}, {trained / sum(lengths):.1%} of them trained on; the longest sample has {max(lengths):,}"
    yield ""
    yield "row_tokens   samples that fit   share of all tokens"
    for row in row_sizes(lengths, row_tokens):
        mark = "   <- data.row_tokens" if row.row_tokens == row_tokens else ""
        yield f"{row.row_tokens:>10,}   {row.samples:>16.1%}   {row.tokens:>19.1%}{mark}"


def _warnings(source: Source, encoded: Samples, samples: Chosen[Encoded], row_tokens: int) -> Iterator[str]:
    records, model = source.records, source.model
    kept, dropped = split_by_length(samples, row_tokens)
    yield from data_cautions(records, copies(records.train), leaks(records.train, records.held_out))
    yield from near_cautions(near_duplicates(*(samples_in(encoded, part) for part in (records.train, records.held_out))))
    yield from dropped_cautions(lengths_of(dropped), kept)
    yield from token_cautions(model.encoder, samples, model.resolved.folder, model.config)


def _sample_lines(sample: ShownSample) -> Iterator[str]:
    """The text with what is trained on between brackets, then its tokens, each with its id and a star where it is trained on."""
    text = "".join(f"⟦{piece.text}⟧" if piece.trained else piece.text for piece in sample.pieces)
    yield from _indented(text)
    yield "  tokens, as text=id, * trained on:"
    half = (len(sample.tokens) + 1) // 2
    first, last = sample.tokens[:half], sample.tokens[half:]
    between = [f"… {sample.num_left_out:,} more …"] if sample.num_left_out else []
    words = [*map(_token_word, first), *between, *map(_token_word, last)]
    yield from textwrap.wrap(" ".join(words), width=110, initial_indent="    ", subsequent_indent="    ", break_long_words=False)


def _token_word(token: ShownToken) -> str:
    text = _printable(token.text.replace("\n", "\\n").replace(" ", "␣"))
    return f"{'*' if token.trained else ''}{text}={token.id}"


def _turn_lines(conversation: Conversation) -> Iterator[str]:
    if is_tokens(conversation):
        yield f"  a row of {len(token_row(conversation)[0]):,} tokens"
        return
    for message in conversation.messages:
        yield f"  {message.role}:"
        yield from _indented(message.content)


def _indented(text: str) -> Iterator[str]:
    """At most 1,500 characters: the first and the last."""
    half = _SHOWN_CHARACTERS // 2
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:half]}\n… {len(text) - 2 * half:,} more characters …\n{text[-half:]}"
    return (f"  | {_printable(line)}" for line in shown.removesuffix("\n").split("\n"))


def _printable(line: str) -> str:
    """Without control characters, which a terminal would obey, and never an event, which the command line would read."""
    plain = "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in line)
    return plain.replace(JSON_MARK, f"{JSON_MARK[0]}\u200b{JSON_MARK[1:]}")


def is_spec(path: Path) -> bool:
    """Whether what a person wants to look at is a spec and not a file of records."""
    return path.suffix in (".yaml", ".yml")
