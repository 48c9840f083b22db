"""Base and tuned model on the same held-out data -> evaluation/, the gate, and the published version where the gate is met."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from components.evaluate.gate import judge
from components.evaluate.measure.answers import load_tokenizer
from components.evaluate.measure.held_out import PackedRow, read_rows
from components.evaluate.measure.looking import Look, Models, PublishedExport, at_base_and_tuned, at_published
from components.evaluate.measure.measures import Found, comparison, measure_of
from components.evaluate.measure.progress import Progress
from components.evaluate.measure.references import references_of
from components.evaluate.same_tokens import check_tokens
from components.shared.documents.plan import Plan, Precision
from components.shared.documents.results import Answer, Comparison, Evaluation, GateResult
from components.shared.documents.tokenizer_sample import TOKENIZER_SAMPLE
from components.shared.errors import RunFailed
from components.shared.machine import computes_bf16, machine_flags
from components.shared.model.source import resolve_planned_model
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log, finished, open_run, work_folder
from components.shared.store.layout import DATASET, EVALUATION, PLAN, export_folder
from components.shared.store.manifest import Manifest, Scalar, fetch_folder, publish_folder, require_manifest
from components.shared.store.published import Move
from components.shared.store.publishing import EVALUATION_FILE, NO_GATE, compared_version, export_of_version, publish_run, store_of
from components.shared.store.storage import Store

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class HeldOut:
    """What is measured."""

    rows: list[PackedRow]
    num_all: int
    """Rows that are held out; `rows` may be a part of them."""


def evaluate_run(run: str, log: Log) -> Manifest:
    """evaluation/ is published; unchanged when it was made from this export already.

    Then comes the gate, and publishing. Raises as `run_step`.
    """
    store, spec = open_run(run)
    export = require_manifest(store, export_folder(spec.training.method))
    published = compared_version(store, spec, export)
    inputs = inputs_of(export, spec, published)
    work = work_folder(run, "evaluate")
    manifest = finished(store, EVALUATION, inputs, log)
    if manifest is None:
        evaluation = _measured(store, spec, export, published, work, log)
        local = work / EVALUATION
        shutil.rmtree(local, ignore_errors=True)
        local.mkdir()
        (local / EVALUATION_FILE).write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
        facts = _facts(evaluation, published, compared_name=spec.publish.name if spec.compares_with_published else None)
        manifest = publish_folder(store, EVALUATION, local, made_by="evaluate", inputs=inputs, facts=facts)
    try:
        gate_or_publish(store, spec, work, log)
    finally:
        shutil.rmtree(work)
    return manifest


def inputs_of(export: Manifest, spec: RunSpec, published: Move | None) -> dict[str, str]:
    """What evaluation/ follows from. Another gate, or another published version that it compares with, is another evaluation."""
    inputs = {"adapter": export.digest}
    if spec.gate != "auto":
        rules: list[object] = [rule.model_dump(mode="json") for rule in spec.gate]
        if spec.compares_with_published:
            rules.append(spec.publish.name)
        inputs["gate"] = hashlib.sha256(json.dumps(rules).encode()).hexdigest()
    if published is not None:
        inputs["published"] = published.digest
    return inputs


def gate_or_publish(store: Store, spec: RunSpec, work: Path, log: Log) -> None:
    """The export is published where the spec names a place and the gate is met. Raises RunFailed where it is not, and must be."""
    evaluation = Evaluation.model_validate_json(store.read_bytes(f"{EVALUATION}/{EVALUATION_FILE}"))
    if evaluation.gate is None:
        raise RunFailed(f"{EVALUATION}: {NO_GATE}")
    if evaluation.gate.not_met:
        if spec.evaluation.must_improve:
            raise RunFailed(*(f"{EVALUATION}: {line}. Fix: {_FIX}" for line in evaluation.gate.not_met))
        log.warning("gate_not_met", published=False, rules=evaluation.gate.not_met)
    elif spec.publish.name is not None:
        move = publish_run(store, spec, name=spec.publish.name, work=work)
        if move is not None:
            log.info("published", version=f"{move.name} v{move.version}", at=move.uri)


_FIX = "begin another run with other data or settings, or change gate in the spec and run it again: the training stays"


def _measured(store: Store, spec: RunSpec, export: Manifest, published: Move | None, work: Path, log: Log) -> Evaluation:
    for folder, names in ((DATASET, ("held_out.parquet", TOKENIZER_SAMPLE)), (PLAN, ("plan.json",)), (export.folder, None)):
        fetch_folder(store, folder, work / folder, names=names)
    plan = Plan.model_validate_json((work / PLAN / "plan.json").read_bytes())
    models = resolve_models(plan, export=work / export.folder)
    if published is not None:
        there = export_of_version(store_of(store), published, work / "published")
        models = models.beside(PublishedExport(there, label=f"{published.name} v{published.version}"))
    check_tokens(models.base, work / DATASET)
    held_out = read_rows(work / DATASET / "held_out.parquet")
    rows = evenly_spaced(held_out, len(held_out) if plan.after is None else plan.after.held_out_rows)
    evaluation = evaluate(models, HeldOut(rows, num_all=len(held_out)), spec, log)
    assert evaluation.gate is not None
    losses = {name: round(each.loss, 4) for name, each in zip(("base_loss", "tuned_loss"), evaluation.both or (), strict=False)}
    log.info("evaluated", **losses, improved=evaluation.improved, gate="met" if evaluation.gate.met else "not met")
    return evaluation


def evenly_spaced(rows: list[PackedRow], count: int) -> list[PackedRow]:
    """`count` of the rows, in their order, as far apart as can be; all of them where there are no more."""
    return rows if count >= len(rows) else [rows[index * len(rows) // count] for index in range(count)]


def resolve_models(plan: Plan, *, export: Path) -> Models:
    """The base model is on this machine. Raises ModelError."""
    dtype = measured_in(plan.precision, on_gpu=torch.cuda.is_available(), flags=machine_flags())
    return Models(base=resolve_planned_model(plan).folder, export=export, dtype=dtype)


def measured_in(precision: Precision, *, on_gpu: bool, flags: frozenset[str]) -> torch.dtype:
    """The number format of training, or fp32 on a CPU that computes this one a number at a time (shared/machine.py)."""
    return DTYPES[precision] if on_gpu or (precision == "bf16" and computes_bf16(flags)) else torch.float32


def evaluate(models: Models, held_out: HeldOut, spec: RunSpec, log: Log) -> Evaluation:
    """All models measured on the same rows, if any are held out, and asked the same questions.

    Raises:
        RunFailed: no held-out row is there though the spec holds some out, a loss is no finite number, or the published version
            cannot be compared.
    """
    if spec.data.holds_out and not held_out.rows:
        raise RunFailed(
            f"{EVALUATION}: no held-out row is left, so nothing shows whether the gate is met. "
            "Fix: begin another run with more held-out data, or with data.held_out_share: 0, which measures nothing"
        )
    tokenizer = load_tokenizer(models.base, spec.data.chat_template)
    metrics = spec.metrics_on_answers
    references = references_of(held_out.rows, tokenizer, count=spec.evaluation.references) if metrics else []
    if metrics and not references:
        raise RunFailed(f"{EVALUATION}: no held-out conversation has a turn before its last one, so {metrics[0]} cannot be measured")
    num_models = 2 if models.published is None else 3
    total = num_models * (len(held_out.rows) + len(references)) + 2 * len(spec.evaluation.questions)
    look = Look(held_out.rows, references, tokenizer, spec, Progress(total=total, log=log))
    if not held_out.rows and not spec.evaluation.questions:
        return _of_nothing(held_out)
    base, tuned = at_base_and_tuned(models, look)
    if not held_out.rows:
        return _of_nothing(held_out).model_copy(update={"answers": _beside_each_other(spec.evaluation.questions, base, tuned)})
    published = at_published(models, look)
    by_name = {"base": base, "tuned": tuned} | ({} if published is None else {"published": published})
    measures = {name: measure_of(found) for name, found in by_name.items()}
    broken = [name for name, measure in measures.items() if not abs(measure.loss) < float("inf")]
    if broken:
        raise RunFailed(*(f"{EVALUATION}: the {name} model's held-out loss is not a finite number; look at its weights" for name in broken))
    return Evaluation(
        base=measures["base"],
        tuned=measures["tuned"],
        answers=_beside_each_other(spec.evaluation.questions, base, tuned),
        improved=measures["tuned"].loss < measures["base"].loss,
        measured_rows=len(held_out.rows),
        held_out_rows=held_out.num_all,
        num_conversations=len(base.counted),
        comparisons=_comparisons(base, tuned, published),
        gate=judge(spec.gate_rules, tuned=tuned, base=base, published=published),
        published=None if models.published is None else models.published.label,
    )


def _of_nothing(held_out: HeldOut) -> Evaluation:
    """Where nothing is held out nothing is measured, and no gate judges."""
    return Evaluation(
        base=None,
        tuned=None,
        answers=(),
        improved=None,
        measured_rows=0,
        held_out_rows=held_out.num_all,
        gate=GateResult(rules=()),
    )


def _beside_each_other(questions: Sequence[str], base: Found, tuned: Found) -> tuple[Answer, ...]:
    asked = zip(questions, base.answers, tuned.answers, strict=True)
    return tuple(Answer(question=question, base=before, tuned=after) for question, before, after in asked)


def _comparisons(base: Found, tuned: Found, published: Found | None) -> tuple[Comparison, ...]:
    """By every metric."""
    found = [comparison(tuned, base, metric, against="base") for metric in tuned.metrics if metric != "perplexity"]
    if published is not None:
        found += [comparison(tuned, published, metric, against="published") for metric in tuned.metrics if metric != "perplexity"]
    return tuple(found)


def _facts(evaluation: Evaluation, published: Move | None, *, compared_name: str | None) -> dict[str, Scalar]:
    """`published_move`: which version was the latest when a rule compared with it, so that no other is replaced unseen, nor one of
    another name than `published_name`."""
    assert evaluation.gate is not None
    base, tuned = evaluation.base, evaluation.tuned
    facts: dict[str, Scalar] = {
        "base_loss": None if base is None else base.loss,
        "tuned_loss": None if tuned is None else tuned.loss,
        "num_tokens": 0 if base is None else base.num_tokens,
        "improved": evaluation.improved,
        "gate_met": evaluation.gate.met,
    }
    if compared_name is not None:
        facts |= {"published_name": compared_name, "published_move": 0 if published is None else published.number}
    return facts
