"""Source -> the files of dataset/: train.parquet, held_out.parquet, quality.json, tokenizer_sample.json, page.html.

Tokens are held in memory, 4 bytes each, beside the text: 100 million tokens take about 1 GB.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.prepare_dataset.cautions import data_cautions, dropped_cautions, token_cautions
from components.prepare_dataset.conversations import Conversation
from components.prepare_dataset.held_out import copies, leaks
from components.prepare_dataset.packing import one_a_row, pack
from components.prepare_dataset.page import render_page
from components.prepare_dataset.quality import Quality, SetQuality, examples, places, set_quality
from components.prepare_dataset.records import first_problems
from components.prepare_dataset.rows import write_rows
from components.prepare_dataset.source import Model, Records, Source
from components.prepare_dataset.tokens import Encoded, Encoder, encode, problem_lines
from components.shared.errors import DataError
from components.shared.manifest import Scalar
from components.shared.model_source import read_json_object
from components.shared.spec import DataSpec, RunSpec
from components.shared.tokenizer_sample import TOKENIZER_SAMPLE, SampleText, TokenizerSample

CHUNK = 1000
"""Conversations tokenised in one call: enough to keep all cores busy, and progress comes every few tenths of a second."""

_NUM_SAMPLE_TEXTS = 50
_SAMPLE_CHARACTERS = 4000

Progress = Callable[[int, int], None]
"""Is told (done, total) after each chunk."""


@dataclass(frozen=True)
class PackedSet:
    encoded: tuple[Encoded, ...]
    """The conversations in the rows."""
    rows: tuple[tuple[int, ...], ...]
    """Indices into `encoded`."""
    dropped_lengths: tuple[int, ...]
    """Of what was too long for a row, in tokens."""


def assemble(spec: RunSpec, source: Source, folder: Path, *, progress: Progress) -> tuple[dict[str, Scalar], tuple[str, ...]]:
    """(facts, warnings) of the dataset whose files are now in the folder.

    Raises:
        DataError: conversations that the template or the tokenizer cannot take, or that are too long for a row.
    """
    packed = source.model.packing.packed
    train, held_out = pack_sets(spec.data, source.records, source.model.encoder, packed=packed, progress=progress)
    quality = _quality(spec, source.records, source.model, train, held_out)
    write_rows(folder / "train.parquet", train.rows, train.encoded)
    write_rows(folder / "held_out.parquet", held_out.rows, held_out.encoded)
    (folder / "quality.json").write_text(quality.model_dump_json(indent=1) + "\n", encoding="utf-8")
    sample = token_sample(source.model, train.encoded)
    (folder / TOKENIZER_SAMPLE).write_text(sample.model_dump_json() + "\n", encoding="utf-8")
    (folder / "page.html").write_text(render_page(spec.name, spec.model.source, quality), encoding="utf-8")
    return _facts(spec, source, quality), quality.warnings


def pack_sets(data: DataSpec, records: Records, encoder: Encoder, *, packed: bool, progress: Progress) -> tuple[PackedSet, PackedSet]:
    """Training and held-out rows: packed, or one conversation each. Raises DataError with the problems of both."""
    encoded = encode_all(encoder, (*records.train, *records.held_out), progress=progress)
    trained = {id(conversation) for conversation in records.train}
    parts: tuple[list[Encoded], list[Encoded]] = ([], [])
    for tokens in encoded:
        parts[id(tokens.source) not in trained].append(tokens)
    too_long = [tokens for tokens in encoded if len(tokens.ids) > data.row_tokens]
    if too_long and data.too_long == "refuse":
        raise DataError(too_long_line(too_long, len(encoded), data.row_tokens))
    train, held_out = (_kept_set(part, data.row_tokens, packed=packed) for part in parts)
    for name, part in (("data.train", train), ("data.held_out", held_out)):
        if not part.encoded:
            raise DataError(f"{name}: every conversation is longer than data.row_tokens {data.row_tokens}, none is left; raise it")
    return train, held_out


def _kept_set(encoded: list[Encoded], row_tokens: int, *, packed: bool) -> PackedSet:
    kept = tuple(tokens for tokens in encoded if len(tokens.ids) <= row_tokens)
    return PackedSet(
        kept,
        _rows(kept, row_tokens, packed=packed),
        dropped_lengths=tuple(len(tokens.ids) for tokens in encoded if len(tokens.ids) > row_tokens),
    )


def token_sample(model: Model, encoded: Sequence[Encoded]) -> TokenizerSample:
    """Up to 50 texts, evenly spaced, by which training and evaluation see that their tokenizer gives the same tokens."""
    encoder = model.encoder
    chosen = encoded[:: -(-len(encoded) // _NUM_SAMPLE_TEXTS)]
    samples = encoder.samples_of([tokens.source for tokens in chosen])
    texts = [each[-1].text[:_SAMPLE_CHARACTERS] for each in samples if not isinstance(each, DataError)]
    encodings = encoder.tokenizer.encode_batch(texts, add_special_tokens=False)
    settings = read_json_object(model.resolved.folder / "tokenizer_config.json")
    return TokenizerSample(
        tokenizer_class=settings.get("tokenizer_class"),
        texts=tuple(SampleText(text=text, ids=tuple(each.ids)) for text, each in zip(texts, encodings, strict=True)),
    )


def encode_all(encoder: Encoder, conversations: Sequence[Conversation], *, progress: Progress) -> list[Encoded]:
    """The tokens of every conversation, in order. Raises DataError naming all that cannot be trained on."""
    encoded: list[Encoded] = []
    problems: dict[str, list[str]] = defaultdict(list)
    for start in range(0, len(conversations), CHUNK):
        chunk, found = encode(encoder, conversations[start : start + CHUNK])
        encoded.extend(chunk)
        for problem, where in found.items():
            problems[problem].extend(where)
        progress(min(start + CHUNK, len(conversations)), len(conversations))
    if problems:
        raise DataError(*first_problems(problem_lines(problems)))
    return encoded


def too_long_line(too_long: Sequence[Encoded], total: int, row_tokens: int) -> str:
    longest = max(too_long, key=lambda tokens: len(tokens.ids))
    return (
        f"data.row_tokens: {len(too_long)} of {total} conversations have more than {row_tokens} tokens, the longest "
        f"{len(longest.ids)} ({longest.source.where}); set data.row_tokens to at least {len(longest.ids)}, or data.too_long: drop"
    )


class LoggedProgress:
    """Logs (done, total) as progress events, at most one a second."""

    def __init__(self, log_progress: Callable[..., object], clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log_progress, clock
        self._start = self._last = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if now - self._last >= 1 or (done == total and self._last > self._start):
            left_s = round((now - self._start) / done * (total - done), 1)
            self._log("progress", done=done, total=total, unit="conversations", left_s=left_s)
            self._last = now


def _rows(encoded: Sequence[Encoded], row_tokens: int, *, packed: bool) -> tuple[tuple[int, ...], ...]:
    if not packed:
        return tuple(one_a_row(len(encoded)))
    return tuple(pack([len(tokens.ids) for tokens in encoded], row_tokens))


def _quality(spec: RunSpec, records: Records, model: Model, train: PackedSet, held_out: PackedSet) -> Quality:
    row_tokens = spec.data.row_tokens
    copied = places(copies(records.train))
    leaked = places(leaks(records.train, records.held_out))
    everything = (*train.encoded, *held_out.encoded)
    return Quality(
        row_tokens=row_tokens,
        packed=model.packing.packed,
        chat_template=model.encoder.template.name,
        train=_set_quality(train, row_tokens),
        held_out=_set_quality(held_out, row_tokens),
        copies=copied,
        leaks=leaked,
        warnings=(
            *data_cautions(records, copied, leaked),
            *dropped_cautions((*train.dropped_lengths, *held_out.dropped_lengths), everything),
            *token_cautions(model.encoder, everything, model.resolved.folder, model.config),
        ),
        examples=examples(model.encoder.tokenizer, train.encoded),
    )


def _set_quality(packed: PackedSet, row_tokens: int) -> SetQuality:
    return set_quality(packed.encoded, num_rows=len(packed.rows), row_tokens=row_tokens, dropped_lengths=packed.dropped_lengths)


def _facts(spec: RunSpec, source: Source, quality: Quality) -> dict[str, Scalar]:
    train, held_out = quality.train, quality.held_out
    return {
        "num_conversations": train.conversations,
        "num_rows": train.rows,
        "held_out_conversations": held_out.conversations,
        "held_out_rows": held_out.rows,
        "num_tokens": train.tokens,
        "num_trained_tokens": train.trained_tokens,
        "row_tokens": spec.data.row_tokens,
        "packed": quality.packed,
        "longest_conversation": max(train.lengths.max, held_out.lengths.max),
        "model_revision": source.model.resolved.revision,
        "train_sha256": source.records.train_sha256,
        "held_out_sha256": source.records.held_out_sha256,
        "dropped": train.dropped + held_out.dropped,
    }
