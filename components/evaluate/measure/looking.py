"""Base, tuned and published model, one after the other in memory (LoRA: one base, its adapter off
and on) -> what each shows."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from components.evaluate.measure.answers import answer
from components.evaluate.measure.held_out import PackedRow, count
from components.evaluate.measure.measures import Found
from components.evaluate.measure.progress import Progress
from components.evaluate.measure.references import Reference, answers_to
from components.evaluate.measure.tasks import TaskValue, task_values
from components.evaluate.measure.text_metrics import score_of
from components.shared.documents.plan import Precision
from components.shared.documents.prompts import NewToken
from components.shared.documents.results import BaseModel
from components.shared.errors import RunFailed
from components.shared.model.folder import OWN_CODE_ONLY
from components.shared.model.new_tokens import grow_model
from components.shared.model.quantized_loading import load_in_4_bits
from components.shared.spec.gate import MeasuredOnAnswers
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import EVALUATION

DTYPES: dict[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


@dataclass(frozen=True)
class PublishedExport:
    folder: Path
    label: str
    """Such as `support v3`."""


@dataclass(frozen=True)
class Models:
    """Where the models are, and the number format in which they are measured."""

    base: Path
    export: Path
    """An adapter for the base (adapter_config.json in it) or a whole model."""
    dtype: torch.dtype
    published: PublishedExport | None = None
    quantized_from: Precision | None = None
    """The base is held in 4 bits, as the adapter was trained on it, made from weights in this
    number format."""
    new_tokens: tuple[NewToken, ...] = ()
    """Of the run: base and published adapter get rows for them too."""

    def beside(self, published: PublishedExport) -> "Models":
        return replace(self, published=published)


@dataclass(frozen=True)
class Look:
    """What is asked of each model."""

    rows: list[PackedRow]
    references: list[Reference]
    tokenizer: Any
    spec: RunSpec
    progress: Progress

    def at(self, model: Any, *, questions: bool = True) -> Found:
        counted = count(model, self.rows, on_row=self.progress.advance)
        on_answers = self._on_answers(model)
        if questions:
            answers = self._answers(model)
        else:
            answers = ()
        return Found(counted, answers, on_answers, self._tasks(model))

    def _tasks(self, model: Any) -> dict[str, TaskValue]:
        """Raises RunFailed where a rule of the gate is about a metric that its task has not."""
        asked = self.spec.evaluation.lm_eval
        values = task_values(model, self.tokenizer, asked)
        rules = [rule.metric for rule in self.spec.gate_rules if rule.task is not None]
        unknown = [metric for metric in rules if metric not in values]
        if unknown:
            there = ", ".join(sorted(values)) or "none"
            raise RunFailed(
                f"{EVALUATION}: gate: {unknown[0]} is not measured by its task; measured are "
                f"{there}. Fix: change gate in the spec and run it again: the training stays"
            )
        self.progress.advance(len(asked.tasks))
        return values

    def _on_answers(self, model: Any) -> dict[MeasuredOnAnswers, list[float]]:
        evaluation, metrics = self.spec.evaluation, self.spec.metrics_on_answers
        if not metrics:
            return {}
        prompts = [each.prompt_ids for each in self.references]
        tokens = evaluation.answer_tokens
        answers = answers_to(
            model, self.tokenizer, prompts, answer_tokens=tokens, on_batch=self.progress.advance
        )
        pairs = list(zip(answers, self.references, strict=True))
        return {
            metric: [
                score_of(metric, said, reference.text, pattern=evaluation.pattern)
                for said, reference in pairs
            ]
            for metric in metrics
        }

    def _answers(self, model: Any) -> tuple[str, ...]:
        evaluation, data = self.spec.evaluation, self.spec.data
        ask = partial(
            answer, answer_tokens=evaluation.answer_tokens, template_args=data.template_args
        )
        answers: list[str] = []
        for question in evaluation.questions:
            answers.append(ask(model, self.tokenizer, question))
            self.progress.advance()
        return tuple(answers)


def at_base_and_tuned(models: Models, look: Look) -> tuple[Found, Found]:
    """Never more than one model is in memory."""
    model: Any = load_base(models)
    if not is_adapter(models.export):
        before = look.at(model)
        del model
        return before, look.at(load(models.export, models.dtype))
    model = PeftModel.from_pretrained(model, models.export).eval()
    with model.disable_adapter():
        before = look.at(model)
    return before, look.at(model)


def at_published(models: Models, look: Look) -> Found | None:
    """None where no published version is compared with.

    Raises:
        RunFailed: its tokens are others, so that losses cannot be compared, or it is an adapter of
            another base.
    """
    if models.published is None:
        return None
    published = models.published.folder
    _refuse_other(models.published, models.export)
    if not is_adapter(published):
        return look.at(load(published, models.dtype), questions=False)
    trained_on = replace(models, quantized_from=_base_of(published).quantized_from)
    return look.at(
        PeftModel.from_pretrained(load_base(trained_on), published).eval(),
        questions=False,
    )


def _refuse_other(published: PublishedExport, export: Path) -> None:
    same_tokens = (published.folder / "tokenizer.json").read_bytes() == (
        export / "tokenizer.json"
    ).read_bytes()
    same_base = _base_of(published.folder).is_same_model(_base_of(export))
    problem = None
    if not same_tokens:
        problem = "has another tokenizer"
    elif is_adapter(published.folder) and not same_base:
        problem = "is an adapter of another base model"
    if problem is not None:
        raise RunFailed(
            f"{EVALUATION}: gate: the published version {published.label} {problem}, so it cannot "
            "be measured beside this run. Fix: make the rules of gate against: base, or publish "
            "under another name"
        )


def _base_of(export: Path) -> BaseModel:
    return BaseModel.model_validate_json((export / "base.json").read_bytes())


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def load_base(models: Models) -> Any:
    """As `load`, with rows for the new tokens; in 4 bits where the adapter was trained so."""
    if models.quantized_from is None:
        model = load(models.base, models.dtype)
    else:
        model = load_in_4_bits(
            AutoModelForCausalLM.from_pretrained,
            models.base,
            models.quantized_from,
            loaded=DTYPES[models.quantized_from],
            dtype=models.dtype,
        )
    grow_model(model, models.new_tokens)
    return model


def load(folder: Path, dtype: torch.dtype) -> Any:
    """The model, ready to be asked, on the first GPU where there is one."""
    if torch.cuda.is_available():
        device = "cuda"
    else:
        device = "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **OWN_CODE_ONLY)
    return model.to(device).eval()
