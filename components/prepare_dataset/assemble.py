"""Source -> the files of dataset/: train.parquet, held_out.parquet, quality.json,
tokenizer_sample.json, page.html.

Text, tokens and numbers are kept on disk (stored.py); in memory are numbers of conversations, which
say to which set and row each belongs, 20 to 40 bytes a conversation.
"""

import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from components.prepare_dataset.packing.row_length import RowLength, row_length
from components.prepare_dataset.packing.rows import write_rows
from components.prepare_dataset.packing.shared_rows import Rows, one_a_row, pack
from components.prepare_dataset.packing.stored import (
    Chosen,
    PackedSample,
    Samples,
    length_counts,
    lengths_of,
    samples_in,
    split_by_length,
    stored,
    stored_samples,
)
from components.prepare_dataset.readers.bad_records import (
    Problems,
    joined,
    num_skipped,
    refuse_bad,
    skipped_cautions,
)
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.held_out import copies, leaks
from components.prepare_dataset.records.near_duplicates import near_duplicates
from components.prepare_dataset.report.cautions import (
    data_cautions,
    dropped_cautions,
    near_cautions,
    token_cautions,
)
from components.prepare_dataset.report.page import render_page
from components.prepare_dataset.report.quality import (
    Quality,
    SetQuality,
    examples,
    row_sizes,
    set_quality,
)
from components.prepare_dataset.report.shown_samples import shown_samples
from components.prepare_dataset.samples.in_processes import in_processes
from components.prepare_dataset.samples.tokens import Encoded, Encoder, encode
from components.prepare_dataset.source import Model, Records, Source
from components.shared.documents.tokenizer_sample import (
    TOKENIZER_SAMPLE,
    SampleText,
    TokenizerSample,
)
from components.shared.errors import DataError
from components.shared.model.source import read_json_object
from components.shared.spec.data import DataSpec
from components.shared.spec.run_spec import RunSpec
from components.shared.store.manifest import Scalar

_NUM_SAMPLE_TEXTS = 50
_SAMPLE_CHARACTERS = 4000
_NONE_LEFT = (
    "data.train: every record is bad and was skipped, none is left; set data.on_bad_record: fail "
    "to see why"
)

Progress = Callable[[int, int], None]
"""Is called with (done, total) after each chunk."""


def no_progress(done: int, total: int) -> None:
    """Where nobody looks on."""


@dataclass(frozen=True)
class PackedSet:
    samples: Chosen[Encoded]
    """Those in the rows."""
    rows: Rows
    """Indices into `samples`."""
    dropped: Chosen[Encoded]
    """Those that were too long for a row."""

    @property
    def dropped_lengths(self) -> "array[int]":
        """In tokens."""
        return lengths_of(self.dropped)


def assemble(
    spec: RunSpec,
    source: Source,
    folder: Path,
    *,
    progress: Progress,
    processes: int | None = None,
) -> tuple[dict[str, Scalar], tuple[str, ...]]:
    """(facts, warnings) of the dataset whose files are now in the folder; the same bytes whatever
    the number of processes.

    Raises:
        DataError: conversations that the template or the tokenizer cannot take, or that are too
            long for a row.
    """
    encoded = encode_all(
        spec.data, source.model.encoder, source.records, progress=progress, processes=processes
    )
    row = row_length_of(spec.data, source, encoded)
    train, held_out = pack_sets(
        spec.data,
        source.records,
        encoded,
        row_tokens=row.tokens,
        packed=source.model.packing.packed,
    )
    for name, part in (("train", train), ("held_out", held_out)):
        write_rows(folder / f"{name}.parquet", part.rows, part.samples, row_tokens=row.tokens)
    quality = _quality(source, train, held_out, encoded.skipped, row)
    (folder / "quality.json").write_text(quality.model_dump_json(indent=1) + "\n", encoding="utf-8")
    sample = token_sample(source.model, train.samples)
    (folder / TOKENIZER_SAMPLE).write_text(sample.model_dump_json() + "\n", encoding="utf-8")
    (folder / "page.html").write_text(
        render_page(spec.name, spec.model.source, quality), encoding="utf-8"
    )
    return _facts(source, quality), quality.warnings


def row_length_of(data: DataSpec, source: Source, encoded: Samples) -> RowLength:
    """How many tokens a row has. Raises DataError where auto cannot make rows long enough and
    nothing may be dropped."""
    samples = used_samples(source.records, encoded)
    row = row_of_used(data, source, encoded, samples)
    lengths = lengths_of(samples)
    if data.row_tokens == "auto" and data.too_long == "refuse" and max(lengths) > row.tokens:
        longer = sum(length > row.tokens for length in lengths)
        raise DataError(
            f"data.row_tokens: auto makes rows of at most {row.tokens} tokens, as {row.reason}, "
            f"and {longer} of {len(lengths)} conversations have more. Fix: set data.too_long: "
            "drop, or split them"
        )
    return row


def row_of_used(
    data: DataSpec, source: Source, encoded: Samples, samples: Chosen[Encoded]
) -> RowLength:
    """How many tokens a row has, by `samples`, those that are trained on or held out. Raises
    DataError where there are none."""
    if not samples:
        raise DataError(_NONE_LEFT)
    is_text, sources = encoded.conversations.is_text, encoded.sources
    whole, texts = array("I"), array("I")
    for number in samples.numbers:
        (texts if is_text[sources[number]] else whole).append(encoded.lengths[number])
    return row_length(
        data, whole, source.model.config, packed=source.model.packing.packed, texts=texts
    )


def used_samples(records: Records, encoded: Samples) -> Chosen[Encoded]:
    """All that are trained on or held out; records that a mixture leaves out are not among them."""
    both = (samples_in(encoded, part).numbers for part in (records.train, records.held_out))
    return encoded[:].of(array("I", chain.from_iterable(both)))


def pack_sets(
    data: DataSpec, records: Records, encoded: Samples, *, row_tokens: int, packed: bool
) -> tuple[PackedSet, PackedSet]:
    """Training and held-out rows: packed, or one conversation each. Raises DataError with the
    problems of both."""
    parts = [samples_in(encoded, part) for part in (records.train, records.held_out)]
    if data.too_long == "refuse":
        refuse_too_long(parts, row_tokens)
    train, held_out = (_kept_set(part, row_tokens, packed=packed) for part in parts)
    for name, part in (("data.train", train), ("data.held_out", held_out)):
        if part.dropped and not part.samples:
            raise DataError(
                f"{name}: every conversation is longer than data.row_tokens {row_tokens}, none is "
                "left; raise it"
            )
    if not train.samples:
        raise DataError(_NONE_LEFT)
    if not held_out.samples:
        refuse_no_held_out(data)
    return train, held_out


def refuse_no_held_out(data: DataSpec) -> None:
    """Raises DataError where held-out records are asked for; called where none can be used."""
    if data.held_out is not None:
        raise DataError(
            "data.held_out: every record is bad, refused by the template or longer than a row, so "
            "the model could not be measured. Fix: correct them (data.on_bad_record: fail shows "
            "what is bad), or raise data.row_tokens"
        )
    if data.holds_out:
        raise DataError(
            f"data.held_out_share: {data.held_out_share:g} of data.train was set aside, and every "
            "record of it is refused by the template or longer than a row, so the model could not "
            "be measured. Fix: correct or remove bad records, raise the share, or set it to 0"
        )


def _kept_set(samples: Chosen[Encoded], row_tokens: int, *, packed: bool) -> PackedSet:
    kept, dropped = split_by_length(samples, row_tokens)
    if packed:
        rows = pack(lengths_of(kept), row_tokens)
    else:
        rows = one_a_row(len(kept))
    return PackedSet(kept, rows, dropped)


def token_sample(model: Model, encoded: Sequence[Encoded]) -> TokenizerSample:
    """Up to 50 texts, evenly spaced, by which training and evaluation see that their tokenizer
    gives the same tokens."""
    encoder = model.encoder
    chosen = encoded[:: -(-len(encoded) // _NUM_SAMPLE_TEXTS)]
    samples = encoder.samples_of([tokens.source for tokens in chosen])
    texts = [
        each[-1].text[:_SAMPLE_CHARACTERS] for each in samples if not isinstance(each, DataError)
    ]
    encodings = encoder.tokenizer.encode_batch(texts, add_special_tokens=False)
    settings = read_json_object(model.resolved.folder / "tokenizer_config.json")
    return TokenizerSample(
        tokenizer_class=settings.get("tokenizer_class"),
        texts=tuple(
            SampleText(text=text, ids=tuple(each.ids))
            for text, each in zip(texts, encodings, strict=True)
        ),
    )


def encode_all(
    data: DataSpec,
    encoder: Encoder,
    records: Records,
    *,
    progress: Progress,
    processes: int | None = None,
) -> Samples:
    """The tokens of every conversation, in order. Raises DataError naming all that cannot be
    trained on, unless they may be skipped."""
    conversations = stored(records.train)
    encoded = Samples(conversations)
    problems: dict[str, list[str]] = defaultdict(list)
    for start, stop, (chunk, found) in in_processes(
        encoded_chunk, encoder, conversations, processes=processes
    ):
        for offset, sample in chunk:
            encoded.append(start + offset, sample)
        for problem, where in found.items():
            problems[problem].extend(where)
        progress(stop, len(conversations))
    encoded.skipped = joined((records.skipped, problems))
    refuse_bad(data, encoded.skipped, num_records=len(conversations) + num_skipped(records.skipped))
    if not encoded:
        raise DataError(_NONE_LEFT)
    return encoded


def encoded_chunk(
    encoder: Encoder,
    conversations: Sequence[Conversation],
) -> tuple[list[tuple[int, PackedSample]], dict[str, list[str]]]:
    """(number of its conversation in the chunk and tokens of each sample, problem -> the places of
    all that have it)."""
    numbers = {id(conversation): number for number, conversation in enumerate(conversations)}
    encoded, problems = encode(encoder, conversations)
    return [(numbers[id(each.source)], PackedSample(each)) for each in encoded], problems


def refuse_too_long(
    parts: Sequence[Chosen[Encoded]], row_tokens: int, *, what: str = "conversations"
) -> None:
    """Raises DataError where samples are longer than a row; `what` says which they are."""
    too_long = [split_by_length(part, row_tokens)[1] for part in parts]
    num_too_long = sum(map(len, too_long))
    if not num_too_long:
        return
    samples = stored_samples(parts[0])
    numbers = chain.from_iterable(part.numbers for part in too_long)
    longest = samples[max(numbers, key=samples.lengths.__getitem__)]
    raise DataError(
        f"data.row_tokens: {num_too_long} of {sum(map(len, parts))} {what} have more than "
        f"{row_tokens} tokens, the longest {len(longest.ids)} ({longest.source.where}); set "
        f"data.row_tokens to at least {len(longest.ids)}, or data.too_long: drop"
    )


class LoggedProgress:
    """Logs (done, total) as progress events, at most one a second."""

    def __init__(
        self, log_progress: Callable[..., object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._clock = log_progress, clock
        self._start = self._last = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if now - self._last >= 1 or (done == total and self._last > self._start):
            left_s = round((now - self._start) / done * (total - done), 1)
            self._log("progress", done=done, total=total, unit="conversations", left_s=left_s)
            self._last = now


def _quality(
    source: Source,
    train: PackedSet,
    held_out: PackedSet,
    skipped: Problems,
    row: RowLength,
) -> Quality:
    records, model, row_tokens = source.records, source.model, row.tokens
    copied, leaked = copies(records.train), leaks(records.train, records.held_out)
    near = near_duplicates(train.samples, held_out.samples)
    everything = train.samples.of(
        array("I", chain(train.samples.numbers, held_out.samples.numbers))
    )
    dropped = train.dropped.of(array("I", chain(train.dropped.numbers, held_out.dropped.numbers)))
    dropped_lengths = lengths_of(dropped)
    return Quality(
        row_tokens=row_tokens,
        row_tokens_reason=row.reason,
        packed=model.packing.packed,
        chat_template=model.encoder.template.name,
        train=_set_quality(train, row_tokens),
        held_out=_set_quality(held_out, row_tokens) if held_out.samples else None,
        copies=copied,
        leaks=leaked,
        near_copies=near.train,
        near_leaks=near.held_out,
        skipped=num_skipped(skipped),
        warnings=(
            *skipped_cautions(skipped),
            *data_cautions(records, copied, leaked),
            *near_cautions(near),
            *dropped_cautions(dropped_lengths, everything),
            *token_cautions(model.encoder, everything, model.resolved.folder, model.config),
        ),
        sources=records.uses,
        turns=dict(stored(records.train).roles.most_common()),
        row_sizes=row_sizes(length_counts(everything) + length_counts(dropped), row_tokens),
        samples=shown_samples(model.encoder.tokenizer, train.samples, dropped.numbers),
        examples=examples(model.encoder.tokenizer, train.samples),
    )


def _set_quality(part: PackedSet, row_tokens: int) -> SetQuality:
    return set_quality(
        part.samples,
        num_rows=len(part.rows),
        row_tokens=row_tokens,
        dropped_lengths=part.dropped_lengths,
    )


def _facts(source: Source, quality: Quality) -> dict[str, Scalar]:
    train, held_out = quality.train, quality.held_out
    return {
        "num_conversations": train.conversations,
        "num_rows": train.rows,
        "held_out_conversations": held_out.conversations if held_out else 0,
        "held_out_rows": held_out.rows if held_out else 0,
        "num_tokens": train.tokens,
        "num_trained_tokens": train.trained_tokens,
        "row_tokens": quality.row_tokens,
        "packed": quality.packed,
        "longest_conversation": max(part.lengths.max for part in (train, held_out) if part),
        "model_revision": source.model.resolved.revision,
        "num_embeddings": source.model.encoder.vocab_size,
        "train_sha256": source.records.train_sha256,
        "held_out_sha256": source.records.held_out_sha256,
        "skipped": quality.skipped,
        "dropped": sum(part.dropped for part in (train, held_out) if part),
    }
