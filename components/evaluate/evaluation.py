"""Base and tuned model, one after the other in memory (LoRA: one base, its adapter off and on) -> evaluation/, and the gate."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from components.evaluate.answers import answer, load_tokenizer
from components.evaluate.held_out import PackedRow, measure, read_rows
from components.evaluate.progress import Progress
from components.evaluate.same_tokens import check_tokens
from components.shared.errors import RunFailed
from components.shared.layout import DATASET, EVALUATION, PLAN, export_folder
from components.shared.machine import computes_bf16, machine_flags
from components.shared.manifest import Manifest, Scalar, fetch_folder, publish_folder, require_manifest
from components.shared.model_folder import OWN_CODE_ONLY
from components.shared.model_source import resolve_planned_model
from components.shared.plan import Plan, Precision
from components.shared.results import Answer, Evaluation, Measure
from components.shared.spec import RunSpec
from components.shared.step import Log, finished, open_run, work_folder
from components.shared.tokenizer_sample import TOKENIZER_SAMPLE

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Models:
    """Where both models are, and the number format in which they are measured."""

    base: Path
    export: Path
    """An adapter for the base (adapter_config.json in it) or a whole model."""
    dtype: torch.dtype


@dataclass(frozen=True)
class Found:
    """What one model showed."""

    measure: Measure | None
    """None where nothing is held out."""
    answers: tuple[str, ...]


def evaluate_run(run: str, log: Log) -> Manifest:
    """evaluation/ is published; unchanged when it was made from this export already. Raises as `run_step`."""
    store, spec = open_run(run)
    export = require_manifest(store, export_folder(spec.training.method))
    inputs = {"adapter": export.digest}
    done = finished(store, EVALUATION, inputs, log)
    if done is not None:
        return gated(done, spec)
    work = work_folder(run, "evaluate")
    for folder, names in ((DATASET, ("held_out.parquet", TOKENIZER_SAMPLE)), (PLAN, ("plan.json",)), (export.folder, None)):
        fetch_folder(store, folder, work / folder, names=names)
    plan = Plan.model_validate_json((work / PLAN / "plan.json").read_bytes())
    models = resolve_models(plan, export=work / export.folder)
    check_tokens(models.base, work / DATASET)
    held_out = read_rows(work / DATASET / "held_out.parquet")
    rows = evenly_spaced(held_out, len(held_out) if plan.after is None else plan.after.held_out_rows)
    evaluation = evaluate(models, rows, spec, log, num_held_out=len(held_out))
    losses = {name: round(each.loss, 4) for name, each in zip(("base_loss", "tuned_loss"), evaluation.both or (), strict=False)}
    log.info("evaluated", **losses, improved=evaluation.improved)
    local = work / EVALUATION
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir()
    (local / "evaluation.json").write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
    published = publish_folder(store, EVALUATION, local, made_by="evaluate", inputs=inputs, facts=_facts(evaluation))
    shutil.rmtree(work)
    return gated(published, spec)


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


def evaluate(models: Models, rows: list[PackedRow], spec: RunSpec, log: Log, *, num_held_out: int) -> Evaluation:
    """Both models measured on the same rows, of all that are held out, if any, and asked the same questions.

    Raises:
        RunFailed: a loss is no finite number.
    """
    tokenizer = load_tokenizer(models.base, spec.data.chat_template)
    ask = partial(answer, answer_tokens=spec.evaluation.answer_tokens, template_args=spec.data.template_args)
    progress = Progress(total=2 * (len(rows) + len(spec.evaluation.questions)), log=log)

    def look(model: Any) -> Found:
        found = measure(model, rows, on_row=progress.advance) if rows else None
        answers: list[str] = []
        for question in spec.evaluation.questions:
            answers.append(ask(model, tokenizer, question))
            progress.advance()
        return Found(found, tuple(answers))

    nothing = Found(None, ())
    before, after = look_at_both(models, look) if rows or spec.evaluation.questions else (nothing, nothing)
    measures = (("base", before.measure), ("tuned", after.measure))
    broken = [name for name, found in measures if found is not None and not abs(found.loss) < float("inf")]
    if broken:
        raise RunFailed(*(f"{EVALUATION}: the {name} model's held-out loss is not a finite number; look at its weights" for name in broken))
    return Evaluation(
        base=before.measure,
        tuned=after.measure,
        answers=tuple(
            Answer(question=question, base=old, tuned=new)
            for question, old, new in zip(spec.evaluation.questions, before.answers, after.answers, strict=True)
        ),
        improved=None if before.measure is None or after.measure is None else after.measure.loss < before.measure.loss,
        measured_rows=len(rows),
        held_out_rows=num_held_out,
    )


def look_at_both(models: Models, look: Callable[[Any], Found]) -> tuple[Found, Found]:
    """What `look` finds in the base model and in the tuned one; never more than one model in memory."""
    model: Any = load(models.base, models.dtype)
    if not (models.export / "adapter_config.json").is_file():
        before = look(model)
        del model
        return before, look(load(models.export, models.dtype))
    model = PeftModel.from_pretrained(model, models.export).eval()
    with model.disable_adapter():
        before = look(model)
    return before, look(model)


def load(folder: Path, dtype: torch.dtype) -> Any:
    """The model, ready to be asked, on the first GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **OWN_CODE_ONLY)
    return model.to(device).eval()


def gated(manifest: Manifest, spec: RunSpec) -> Manifest:
    """The manifest of a finished evaluation. Raises RunFailed when the spec wants an improvement and there is none."""
    facts = manifest.facts
    if spec.evaluation.must_improve and facts["improved"] is False:
        raise RunFailed(
            f"{EVALUATION}: the tuned model's held-out loss, {facts['tuned_loss']:.4f}, is not below the base model's, "
            f"{facts['base_loss']:.4f}; read {spec.run_uri}/{EVALUATION}/evaluation.json, then begin another run with other data or "
            "settings, or with evaluation.must_improve: false"
        )
    return manifest


def _facts(evaluation: Evaluation) -> dict[str, Scalar]:
    base, tuned = evaluation.base, evaluation.tuned
    return {
        "base_loss": None if base is None else base.loss,
        "tuned_loss": None if tuned is None else tuned.loss,
        "num_tokens": 0 if base is None else base.num_tokens,
        "improved": evaluation.improved,
    }
