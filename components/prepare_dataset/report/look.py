"""Conversations, and with a model their tokens -> what the data is, before a run is paid for.

`hagane data` shows it as lines (look_lines.py), and with `--json` as it is.
"""

from collections import Counter
from collections.abc import Iterator

from components.prepare_dataset.assemble import (
    Progress,
    encode_all,
    no_progress,
    row_of_used,
    used_samples,
)
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
from components.prepare_dataset.report.cautions import (
    data_cautions,
    dropped_cautions,
    near_cautions,
    token_cautions,
)
from components.prepare_dataset.report.quality import RowSize, row_sizes
from components.prepare_dataset.report.shown_samples import ShownSample, shown_samples
from components.prepare_dataset.samples.tokens import Encoded
from components.prepare_dataset.source import Source
from components.shared.documents.fields import FrozenModel
from components.shared.spec.data import DataSpec

_SHOWN_CHARACTERS = 1500


class Characters(FrozenModel):
    """Of a conversation: the fewest, the median, the most."""

    min: int
    median: int
    max: int


class RecordCounts(FrozenModel):
    """What can be counted of records without a model."""

    conversations: int
    turns: dict[str, int]
    """Turns of each role."""
    with_tools: int
    """Conversations that have tools."""
    with_reasoning: int
    """Turns that have reasoning."""
    not_trained_on: int
    """Assistant turns of weight 0."""
    copies: int
    """Conversations that stand more than once."""
    different_questions: int
    """First questions, equal ones counted once."""
    sharing_a_question: int
    """Conversations whose first question another one has too."""
    characters: Characters


class ShownTurn(FrozenModel):
    role: str
    text: str
    """At most 1,500 characters: the first and the last."""


class ShownRecord(FrozenModel):
    where: str
    """`file:line`."""
    turns: tuple[ShownTurn, ...] = ()
    num_tokens: int | None = None
    """Of a row that was tokenised elsewhere, which has no turns to show."""


class FileLook(FrozenModel):
    """What a file of records is; nothing of a model is needed."""

    form: str
    records: RecordCounts
    first: ShownRecord
    longest: ShownRecord | None
    """None where it is the first."""


class DataLook(FrozenModel):
    """What a spec's data is, as its model reads it."""

    form: str
    template: str
    sources: tuple[str, ...]
    """How many records of each source are trained on in an epoch, where there are several."""
    records: RecordCounts
    """Of the training data."""
    held_out_conversations: int
    row_tokens: int
    row_tokens_reason: str
    num_tokens: int
    num_trained_tokens: int
    longest_sample_tokens: int
    row_sizes: tuple[RowSize, ...]
    warnings: tuple[str, ...]
    samples: tuple[ShownSample, ...]


def look_at_file(file: RecordFile) -> FileLook:
    conversations = stored(file.conversations)
    longest = max(range(len(conversations)), key=conversations.num_characters.__getitem__)
    return FileLook(
        form=file.form,
        records=_counts(conversations),
        first=_shown(conversations[0]),
        longest=_shown(conversations[longest]) if longest else None,
    )


def look_at_data(source: Source, data: DataSpec, *, progress: Progress = no_progress) -> DataLook:
    """Raises DataError where the data cannot be trained on."""
    records, encoder = source.records, source.model.encoder
    encoded = encode_all(data, encoder, records, progress=progress)
    samples = used_samples(records, encoded)
    row = row_of_used(data, source, encoded, samples)
    warnings = _warnings(source, encoded, samples, row.tokens)
    lengths = lengths_of(samples)
    num_trained = stored_samples(samples).num_trained
    kept, dropped = split_by_length(samples, row.tokens)
    return DataLook(
        form=", ".join(dict.fromkeys(records.forms)),
        template=encoder.template.name,
        sources=tuple(records.uses),
        records=_counts(stored(records.train)),
        held_out_conversations=len(records.held_out),
        row_tokens=row.tokens,
        row_tokens_reason=row.reason,
        num_tokens=sum(lengths),
        num_trained_tokens=sum(num_trained[number] for number in samples.numbers),
        longest_sample_tokens=max(lengths),
        row_sizes=row_sizes(Counter(lengths), row.tokens),
        warnings=(*skipped_cautions(encoded.skipped), *warnings),
        samples=shown_samples(encoder.tokenizer, kept or dropped, dropped.numbers),
    )


def _counts(conversations: Conversations) -> RecordCounts:
    asked = set(repeated(lambda: conversations.questions))
    again = sum(question in asked for question in conversations.questions)
    characters = sorted(conversations.num_characters)
    return RecordCounts(
        conversations=len(conversations),
        turns=dict(conversations.roles.most_common()),
        with_tools=conversations.num_with_tools,
        with_reasoning=conversations.num_with_reasoning,
        not_trained_on=conversations.num_not_trained,
        copies=copies(conversations[:]).count,
        different_questions=len(conversations) - again + len(asked),
        sharing_a_question=again,
        characters=Characters(
            min=characters[0], median=characters[len(characters) // 2], max=characters[-1]
        ),
    )


def _warnings(
    source: Source, encoded: Samples, samples: Chosen[Encoded], row_tokens: int
) -> Iterator[str]:
    records, model = source.records, source.model
    kept, dropped = split_by_length(samples, row_tokens)
    yield from data_cautions(records, copies(records.train), leaks(records.train, records.held_out))
    sets = (samples_in(encoded, part) for part in (records.train, records.held_out))
    yield from near_cautions(near_duplicates(*sets))
    yield from dropped_cautions(lengths_of(dropped), kept)
    yield from token_cautions(model.encoder, samples, model.resolved.folder, model.config)


def _shown(conversation: Conversation) -> ShownRecord:
    if is_tokens(conversation):
        return ShownRecord(where=conversation.where, num_tokens=len(token_row(conversation)[0]))
    turns = (
        ShownTurn(role=message.role, text=shortened(message.content))
        for message in conversation.messages
    )
    return ShownRecord(where=conversation.where, turns=tuple(turns))


def shortened(text: str) -> str:
    """At most 1,500 characters: the first and the last."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    half = _SHOWN_CHARACTERS // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} more characters …\n{text[-half:]}"
