"""Source -> the files of dataset/: train.parquet, held_out.parquet, quality.json, page.html.

Tokens are held in memory, 4 bytes each, beside the text: 100 million tokens take about 1 GB.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.prepare_dataset.cautions import data_cautions, token_cautions
from components.prepare_dataset.held_out import copies, leaks
from components.prepare_dataset.packing import one_a_row, pack
from components.prepare_dataset.page import render_page
from components.prepare_dataset.quality import Quality, examples, places, set_quality
from components.prepare_dataset.records import Conversation, first_problems
from components.prepare_dataset.rows import write_rows
from components.prepare_dataset.source import Model, Records, Source
from components.prepare_dataset.tokens import Encoded, Encoder, encode, problem_lines
from components.shared.errors import DataError
from components.shared.manifest import Scalar
from components.shared.spec import DataSpec, RunSpec

CHUNK = 1000
"""Conversations tokenised in one call: enough to keep all cores busy, and progress comes every few tenths of a second."""

Progress = Callable[[int, int], None]
"""Is told (done, total) after each chunk."""


@dataclass(frozen=True)
class PackedSet:
    encoded: tuple[Encoded, ...]
    """The conversations in the rows."""
    rows: tuple[tuple[int, ...], ...]
    """Indices into `encoded`."""
    dropped: int


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
    (folder / "page.html").write_text(render_page(spec.name, spec.model.source, quality), encoding="utf-8")
    return _facts(spec, source, quality), quality.warnings


def pack_sets(data: DataSpec, records: Records, encoder: Encoder, *, packed: bool, progress: Progress) -> tuple[PackedSet, PackedSet]:
    """Training and held-out rows: packed, or one conversation each. Raises DataError with the problems of both."""
    num_train = len(records.train)
    encoded = encode_all(encoder, (*records.train, *records.held_out), progress=progress)
    kept = [[tokens for tokens in part if len(tokens.ids) <= data.row_tokens] for part in (encoded[:num_train], encoded[num_train:])]
    too_long = [tokens for tokens in encoded if len(tokens.ids) > data.row_tokens]
    if too_long and data.too_long == "refuse":
        raise DataError(too_long_line(too_long, len(encoded), data.row_tokens))
    for name, part in zip(("data.train", "data.held_out"), kept, strict=True):
        if not part:
            raise DataError(f"{name}: every conversation is longer than data.row_tokens {data.row_tokens}, none is left; raise it")
    train, held_out = (tuple(part) for part in kept)
    return (
        PackedSet(train, _rows(train, data.row_tokens, packed=packed), num_train - len(train)),
        PackedSet(held_out, _rows(held_out, data.row_tokens, packed=packed), len(encoded) - num_train - len(held_out)),
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
        train=set_quality(train.encoded, num_rows=len(train.rows), row_tokens=row_tokens, dropped=train.dropped),
        held_out=set_quality(held_out.encoded, num_rows=len(held_out.rows), row_tokens=row_tokens, dropped=held_out.dropped),
        copies=copied,
        leaks=leaked,
        warnings=(
            *data_cautions(copied, leaked, dropped=train.dropped + held_out.dropped),
            *token_cautions(model.encoder, everything, model.resolved.folder, model.config),
        ),
        examples=examples(model.encoder.tokenizer, train.encoded),
    )


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
