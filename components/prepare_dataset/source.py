"""A spec -> everything its dataset is made from, read and checked: records, tokenizer, template,
and their digests."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from components.prepare_dataset.packing.row_length import text_row
from components.prepare_dataset.packing.shared_rows import ROW_ORDER_VERSION
from components.prepare_dataset.packing.stored import Chosen, stored
from components.prepare_dataset.readers.bad_records import Problems, joined, num_skipped, refuse_bad
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.held_out import set_aside
from components.prepare_dataset.records.mixture import mixed, source_uses, unused_sources
from components.prepare_dataset.records.records import RecordFile, RecordSource, read_records
from components.prepare_dataset.records.texts import TEXT
from components.prepare_dataset.samples.tokens import Encoder, load_encoder
from components.prepare_dataset.templates.chat_template import read_template
from components.shared.errors import DataError, HaganeError, all_of, attempt
from components.shared.model.row_packing import RowPacking, row_packing
from components.shared.model.source import (
    CONFIG_AND_TOKENIZER,
    ResolvedModel,
    planned_config,
    refuse_config_alone,
    resolve_model,
)
from components.shared.spec.data import DataSpec, SourceSpec
from components.shared.spec.run_spec import ModelSpec, RunSpec


@dataclass(frozen=True)
class Records:
    train: Chosen[Conversation]
    """In the order of reading; those of a source with `repeat` stand there so often, one after the
    other."""
    held_out: Chosen[Conversation]
    train_sha256: str
    held_out_sha256: str | None
    """None where a share of the training file is held out."""
    forms: tuple[str, ...] = ()
    """What the records of each file were read as."""
    skipped: Problems = field(default_factory=dict)
    """Records that are no conversation and were left out, as `data.on_bad_record` says."""
    uses: tuple[str, ...] = ()
    """For people: how many records of each source are trained on in an epoch."""
    unused: tuple[str, ...] = ()
    """Paths of sources of which no record is trained on."""


@dataclass(frozen=True)
class Model:
    resolved: ResolvedModel
    config: dict[str, Any]
    encoder: Encoder
    packing: RowPacking


@dataclass(frozen=True)
class Source:
    records: Records
    model: Model
    inputs: dict[str, str]
    """Name -> sha256, in hex, of all that decides what is in the dataset."""


def load_source(spec: RunSpec, *, now: datetime) -> Source:
    """Reads the records and the model's tokenizer; of a hub id, these small files are fetched.

    Raises:
        HaganeError: the problems of the data, the model's type, the tokenizer and the template, all
            at once.
    """
    errors: list[HaganeError] = []
    records = attempt(errors, lambda: _load_records(spec.data))
    if records is not None:
        attempt(errors, lambda: _refuse_metrics_on_texts(spec, records))
    needs_template = records is None or stored(records.train).has_turns
    model = attempt(errors, lambda: _load_model(spec, now=now, needs_template=needs_template))
    if records is None or model is None or errors:
        raise all_of(errors)
    return Source(records, model, _inputs(spec, records, model))


def _refuse_metrics_on_texts(spec: RunSpec, records: Records) -> None:
    """Raises DataError where answers are to be measured and all that is held out are texts, in
    which nobody answers."""
    metrics = ", ".join(spec.metrics_on_answers)
    held_out_forms = records.forms[len(spec.data.train_sources) :] or records.forms
    if metrics and set(held_out_forms) == {TEXT}:
        raise DataError(
            f"evaluation.metrics and gate: {metrics} are of answers, and the held-out data is text "
            "without turns. Fix: leave them out (loss, perplexity and token_accuracy are of any "
            "data), or name conversations in data.held_out"
        )


def _load_records(data: DataSpec) -> Records:
    sources = [_record_source(data, source) for source in data.train_sources]
    held_out_sources = [_record_source(data, source) for source in data.held_out_sources]
    files = read_records(*sources, *held_out_sources, skip_bad=data.on_bad_record == "skip")
    skipped = joined(file.skipped for file in files)
    num_records = sum(len(file.conversations) for file in files) + num_skipped(skipped)
    refuse_bad(data, skipped, num_records=num_records)
    forms = tuple(file.form for file in files)
    train_files, held_out_files = files[: len(sources)], files[len(sources) :]
    sha256 = _of_all([file.sha256 for file in train_files])
    everything = _all_of(train_files)
    if held_out_files:
        train, held_out = everything, _all_of(held_out_files)
        held_out_sha256 = _of_all([file.sha256 for file in held_out_files])
    else:
        split = set_aside(everything, data.held_out_share, by=data.held_out_by)
        train, held_out, held_out_sha256 = split.train, split.held_out, None
    mixture = mixed(train, train_files, data.train_sources)
    if not mixture:
        raise DataError(
            "data.train: no record is trained on, as little is asked of each source. Fix: raise "
            "repeat, or leave it out"
        )
    uses = source_uses(mixture, train_files, data.train_sources)
    unused = unused_sources(mixture, train_files, data.train_sources)
    return Records(mixture, held_out, sha256, held_out_sha256, forms, skipped, uses, unused)


def _all_of(files: Sequence[RecordFile]) -> Chosen[Conversation]:
    """The conversations of all these files, which were read one after the other."""
    numbers = [file.conversations.numbers for file in files]
    return files[0].conversations.of(range(numbers[0][0], numbers[-1][-1] + 1))


def _record_source(data: DataSpec, source: SourceSpec) -> RecordSource:
    """Of a source's own settings, or those of all."""
    if source.columns is None:
        columns = data.columns
    else:
        columns = source.columns
    return RecordSource(
        source.path,
        source.format or data.format,
        columns,
        source.encoding or data.encoding,
        source.split,
    )


def _of_all(digests: list[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    return _sha256(" ".join(digests).encode())


def _load_model(spec: RunSpec, *, now: datetime, needs_template: bool) -> Model:
    errors: list[HaganeError] = []
    resolved = attempt(errors, lambda: resolve_model(spec.model, patterns=CONFIG_AND_TOKENIZER))
    if resolved is None:
        if spec.data.chat_template != "model":
            attempt(errors, lambda: read_template(Path(), spec.data.chat_template, {}))
        raise all_of(errors)
    refuse_config_alone(resolved.folder)
    encoder = attempt(
        errors,
        lambda: load_encoder(
            resolved.folder,
            spec.data.chat_template,
            now=now,
            template_args=spec.data.template_args,
            needs_template=needs_template,
            new_tokens=spec.data.new_tokens,
        ),
    )
    config = attempt(errors, lambda: planned_config(resolved))
    if config is None:
        packing = None
    else:
        packing = attempt(
            errors, lambda: row_packing(spec.data.packing, config, spec.training.attention)
        )
    if encoder is None or config is None or packing is None:
        raise all_of(errors)
    return Model(
        resolved, config, replace(encoder, text_tokens=text_row(spec.data, config)), packing
    )


def _inputs(spec: RunSpec, records: Records, model: Model) -> dict[str, str]:
    encoder = model.encoder
    return {
        "spec": _spec_digest(spec.model, spec.data, packed=model.packing.packed),
        "train": records.train_sha256,
        "held_out": records.held_out_sha256
        or _sha256(f"share {spec.data.held_out_share} of train".encode()),
        "tokenizer": _sha256(encoder.tokenizer_file.read_bytes()),
        "template": _sha256(encoder.template.text.encode()),
    }


def _spec_digest(model: ModelSpec, data: DataSpec, *, packed: bool) -> str:
    """The parts of the spec that decide the dataset, and the way this version of hagane packs."""
    parts = {
        "model": model.model_dump(),
        "data": data.model_dump(),
        "packed": packed,
        "row_order_version": ROW_ORDER_VERSION,
    }
    return _sha256(json.dumps(parts, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
