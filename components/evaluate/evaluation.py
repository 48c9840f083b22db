"""Base and tuned model on the same held-out data -> what evaluation.json tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from components.evaluate.gate import judge
from components.evaluate.measure.answers import load_tokenizer
from components.evaluate.measure.held_out import PackedRow, read_rows
from components.evaluate.measure.looking import (
    DTYPES,
    Look,
    Models,
    PublishedExport,
    at_base_and_tuned,
    at_published,
)
from components.evaluate.measure.measures import Found, comparison, measure_of
from components.evaluate.measure.progress import Progress
from components.evaluate.measure.references import references_of
from components.evaluate.measure.tasks import check_tasks
from components.evaluate.same_tokens import check_tokens
from components.shared.documents.plan import Plan, Precision
from components.shared.documents.prompts import PROMPTS, NewToken, read_prompts
from components.shared.documents.results import Answer, Comparison, Evaluation, GateResult
from components.shared.documents.tokenizer_sample import TOKENIZER_SAMPLE
from components.shared.errors import RunFailed
from components.shared.machine import computes_bf16, machine_flags
from components.shared.model.new_tokens import tokenizer_folder
from components.shared.model.source import resolve_planned_model
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log
from components.shared.store.layout import DATASET, EVALUATION, PLAN
from components.shared.store.manifest import Manifest, fetch_folder
from components.shared.store.published import Move
from components.shared.store.publishing import export_of_version, store_of
from components.shared.store.storage import Store


@dataclass(frozen=True)
class HeldOut:
    """What is measured."""

    rows: list[PackedRow]
    num_all: int
    """Rows that are held out; `rows` may be a part of them."""


def measured(
    store: Store, spec: RunSpec, export: Manifest, published: Move | None, work: Path, log: Log
) -> Evaluation:
    """What the models showed; their files are below `work`. Raises as `run_step`, but for the
    gate."""
    check_tasks(spec.evaluation.lm_eval)
    for folder, names in (
        (DATASET, ("held_out.parquet", TOKENIZER_SAMPLE, PROMPTS)),
        (PLAN, ("plan.json",)),
        (export.folder, None),
    ):
        fetch_folder(store, folder, work / folder, names=names)
    plan = Plan.model_validate_json((work / PLAN / "plan.json").read_bytes())
    new_tokens = read_prompts(work / DATASET).new_tokens
    models = resolve_models(plan, export=work / export.folder, new_tokens=new_tokens)
    if published is not None:
        there = export_of_version(store_of(store), published, work / "published")
        models = models.beside(
            PublishedExport(there, label=f"{published.name} v{published.version}")
        )
    tokenizer = tokenizer_folder(models.base, new_tokens, work / "tokenizer")
    check_tokens(tokenizer, work / DATASET)
    held_out = read_rows(work / DATASET / "held_out.parquet")
    rows = evenly_spaced(held_out, plan.after.held_out_rows)
    evaluation = evaluate(
        models, HeldOut(rows, num_all=len(held_out)), spec, log, tokenizer_files=tokenizer
    )
    assert evaluation.gate is not None
    losses = {
        name: round(each.loss, 4)
        for name, each in zip(("base_loss", "tuned_loss"), evaluation.both or (), strict=False)
    }
    log.info(
        "evaluated",
        **losses,
        improved=evaluation.improved,
        gate="met" if evaluation.gate.met else "not met",
    )
    return evaluation


def evenly_spaced(rows: list[PackedRow], count: int) -> list[PackedRow]:
    """`count` of the rows, in their order, as far apart as can be; all of them where there are no
    more."""
    if count >= len(rows):
        return rows
    return [rows[index * len(rows) // count] for index in range(count)]


def resolve_models(plan: Plan, *, export: Path, new_tokens: tuple[NewToken, ...] = ()) -> Models:
    """The base model is on this machine. Raises ModelError."""
    dtype = measured_in(plan.precision, on_gpu=torch.cuda.is_available(), flags=machine_flags())
    return Models(
        base=resolve_planned_model(plan).folder,
        export=export,
        dtype=dtype,
        quantized_from=plan.precision if plan.model.quantization == "nf4" else None,
        new_tokens=new_tokens,
    )


def measured_in(precision: Precision, *, on_gpu: bool, flags: frozenset[str]) -> torch.dtype:
    """The number format of training, or fp32 on a CPU that computes this one a number at a time
    (shared/machine.py)."""
    if on_gpu or (precision == "bf16" and computes_bf16(flags)):
        return DTYPES[precision]
    return torch.float32


def evaluate(
    models: Models,
    held_out: HeldOut,
    spec: RunSpec,
    log: Log,
    *,
    tokenizer_files: Path | None = None,
) -> Evaluation:
    """All models measured on the same rows, if any are held out, and asked the same questions.
    `tokenizer_files`: the folder of their tokenizer, where that is not the base's own.

    Raises:
        RunFailed: no held-out row is there though the spec holds some out, a loss is no finite
            number, or the published version cannot be compared.
    """
    if spec.data.holds_out and not held_out.rows:
        raise RunFailed(
            f"{EVALUATION}: no held-out row is left, so nothing shows whether the gate is met. "
            "Fix: begin another run with more held-out data, or with data.held_out_share: 0, "
            "which measures nothing"
        )
    tokenizer = load_tokenizer(tokenizer_files or models.base, spec.data.chat_template)
    metrics = spec.metrics_on_answers
    if metrics:
        references = references_of(held_out.rows, tokenizer, count=spec.evaluation.references)
    else:
        references = []
    if metrics and not references:
        raise RunFailed(
            f"{EVALUATION}: no held-out conversation has a turn before its last one, so "
            f"{metrics[0]} cannot be measured"
        )
    if models.published is None:
        num_models = 2
    else:
        num_models = 3
    per_model = len(held_out.rows) + len(references) + len(spec.evaluation.lm_eval.tasks)
    total = num_models * per_model + 2 * len(spec.evaluation.questions)
    look = Look(held_out.rows, references, tokenizer, spec, Progress(total=total, log=log))
    if not held_out.rows and not spec.evaluation.questions:
        return _of_nothing(held_out)
    base, tuned = at_base_and_tuned(models, look)
    if not held_out.rows:
        return _of_nothing(held_out).model_copy(
            update={"answers": _beside_each_other(spec.evaluation.questions, base, tuned)}
        )
    published = at_published(models, look)
    by_name = {"base": base, "tuned": tuned} | (
        {} if published is None else {"published": published}
    )
    measures = {name: measure_of(found) for name, found in by_name.items()}
    broken = [name for name, measure in measures.items() if not abs(measure.loss) < float("inf")]
    if broken:
        raise RunFailed(
            *(
                (
                    f"{EVALUATION}: the {name} model's held-out loss is not a finite number; look "
                    "at its weights"
                )
                for name in broken
            )
        )
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
    return tuple(
        Answer(question=question, base=before, tuned=after) for question, before, after in asked
    )


def _comparisons(base: Found, tuned: Found, published: Found | None) -> tuple[Comparison, ...]:
    """By every metric."""
    found = [
        comparison(tuned, base, metric, against="base")
        for metric in tuned.metrics
        if metric != "perplexity"
    ]
    if published is not None:
        found += [
            comparison(tuned, published, metric, against="published")
            for metric in tuned.metrics
            if metric != "perplexity"
        ]
    return tuple(found)
