"""Read records, and a model's tokenizer and template -> what would stop the dataset from being
made, without making it."""

import heapq
from collections import defaultdict
from collections.abc import Sequence

from components.prepare_dataset.assemble import (
    Progress,
    encoded_chunk,
    refuse_no_held_out,
    refuse_too_long,
)
from components.prepare_dataset.packing.row_length import longest_row
from components.prepare_dataset.packing.stored import Chosen, Samples, stored
from components.prepare_dataset.readers.bad_records import joined, num_skipped, refuse_bad
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.samples.in_processes import in_processes
from components.prepare_dataset.samples.tokens import Encoder, encode, rendered
from components.prepare_dataset.source import Source
from components.shared.spec.data import DataSpec

_LOOKED_AT = 8


def check_conversations(
    data: DataSpec, source: Source, *, progress: Progress, processes: int | None = None
) -> None:
    """Raises DataError where the template cannot write a conversation, or one of the few that are
    tokenised is unfit."""
    encoder, records = source.model.encoder, source.records
    conversations = stored(records.train)
    problems: dict[str, list[str]] = defaultdict(
        list, {name: list(places) for name, places in records.skipped.items()}
    )
    for _, stop, found in in_processes(
        rendering_problems, encoder, conversations, processes=processes
    ):
        for problem, where in found.items():
            problems[problem].extend(where)
        progress(stop, len(conversations))
    num_records = len(conversations) + num_skipped(records.skipped)
    refuse_bad(data, problems, num_records=num_records)
    some = [*_looked_at(records.train), *_looked_at(records.held_out)]
    chunk, unfit = encoded_chunk(encoder, [conversations[number] for number in some])
    refuse_bad(
        data,
        joined((problems, unfit)) if data.on_bad_record == "skip" else unfit,
        num_records=num_records,
    )
    samples = Samples(conversations)
    for index, sample in chunk:
        samples.append(some[index], sample)
    if data.row_tokens == "auto":
        most = longest_row(source.model.config)
    else:
        most = data.row_tokens
    if not _any_fits(encoder, records.held_out, most):
        refuse_no_held_out(data)
    if data.too_long == "refuse":
        refuse_too_long([samples[:]], most, what="conversations looked at")


def rendering_problems(
    encoder: Encoder, conversations: Sequence[Conversation]
) -> dict[str, list[str]]:
    """Problem -> the places of all conversations that the template cannot write as training needs
    it; nothing is tokenised."""
    return rendered(encoder, conversations)[1]


def _any_fits(encoder: Encoder, part: Chosen[Conversation], row_tokens: int) -> bool:
    """Whether a conversation can be trained on and fits a row; the shortest are looked at first,
    mostly eight of them."""
    by_length = part.of(sorted(part.numbers, key=stored(part).num_characters.__getitem__))
    chunks = (
        by_length[start : start + _LOOKED_AT] for start in range(0, len(by_length), _LOOKED_AT)
    )
    return any(
        len(each.ids) <= row_tokens for chunk in chunks for each in encode(encoder, list(chunk))[0]
    )


def _looked_at(part: Chosen[Conversation]) -> list[int]:
    """Numbers of the first 8, and of the 8 with most characters of the others."""
    num_characters = stored(part).num_characters
    longest = heapq.nlargest(_LOOKED_AT, part.numbers[_LOOKED_AT:], key=num_characters.__getitem__)
    return [*part.numbers[:_LOOKED_AT], *longest]
