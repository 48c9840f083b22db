"""The spec: what a person asked of one run. Every field's docstring is the documentation users
read.

Each section has a module beside this one. Parsing (YAML, `--set`, all errors at once, with line
numbers) is in file.py.
"""

import hashlib
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from components.shared.documents.fields import FrozenModel
from components.shared.spec.cluster import ClusterSpec
from components.shared.spec.data import DataSpec
from components.shared.spec.gate import GateRule, MeasuredOnAnswers, auto_or_rules, is_on_answers
from components.shared.spec.hardware import HardwareSpec, ZeroSpec, auto_zero
from components.shared.spec.results import (
    CheckpointSpec,
    EvaluationSpec,
    ExportSpec,
    KeepSpec,
    PublishSpec,
    ResumeSpec,
)
from components.shared.spec.training import LoraSpec, TrainingSpec
from components.shared.spec.values import NAME_PATTERN, PUBLISHED


class ModelSpec(FrozenModel):
    source: str = Field(min_length=1)
    """The base model: a folder in Hugging Face layout (config.json, tokenizer.json, *.safetensors),
    or a hub id such as `cyberagent/open-calm-7b`."""
    revision: str | None = None
    """Hub commit, tag or branch. Only for a hub id; the commit it stands for is written into the
    dataset's manifest."""
    quantization: Literal["auto", "none", "nf4"] = "auto"
    """How LoRA's frozen base is held: `nf4` is 4 bits for each number of its linear layers (QLoRA,
    arXiv 2305.14314), for a quarter of the memory; `none` is as it is. `auto` is `nf4` for files
    that bitsandbytes quantized, else `none`."""


HOW_NOT_WHAT = (
    *("hardware", "zero", "checkpoints", "resume", "cluster", "export", "gate", "publish"),
    *(
        "training.micro_batch",
        "training.gradient_checkpointing",
        "training.output_layer",
        "training.attention",
        "training.report_to",
    ),
    "evaluation.lm_eval",
)
"""Fields that say how a run is worked, not what comes of it: they may change while it is under
way."""


class RunSpec(FrozenModel):
    name: str = Field(pattern=NAME_PATTERN)
    """Name of the run: its folder in the store, its job in the cluster. Small letters, digits,
    hyphens; at most 50."""
    store: str = Field(min_length=1)
    """Where everything of the run goes: a folder, or `s3://bucket/prefix`. Endpoint and keys of S3
    come from the usual AWS_ variables. A relative path counts from the folder of the spec, here and
    in every other field; given by `--set`, it counts from the current folder."""
    backend: Literal["local", "pytorchjob", "trainjob"] = "local"
    """What starts the training processes: `local` on this machine, `pytorchjob` a Kubeflow
    PyTorchJob in a cluster, `trainjob` a TrainJob of Kubeflow Trainer 2."""
    model: ModelSpec
    data: DataSpec
    training: TrainingSpec = TrainingSpec()
    lora: LoraSpec = LoraSpec()
    zero: Annotated[ZeroSpec, BeforeValidator(auto_zero)] = ZeroSpec()
    hardware: HardwareSpec = HardwareSpec()
    checkpoints: CheckpointSpec = CheckpointSpec()
    resume: ResumeSpec = ResumeSpec()
    cluster: ClusterSpec = ClusterSpec()
    export: ExportSpec = ExportSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    gate: Annotated[Literal["auto"] | tuple[GateRule, ...], BeforeValidator(auto_or_rules)] = "auto"
    """What a tuned model must show. `auto`: its held-out loss is below the base's by more than
    noise. Or a list of rules such as `{metric: token_accuracy, improve_by: 0.02}`, `{metric: loss,
    against: published, improve_by: noise}` (the version that is published as `publish.name` now),
    `{metric: json, at_least: 0.95}`; `[]` asks for nothing (docs/result.md)."""
    publish: PublishSpec = PublishSpec()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.name == PUBLISHED:
            raise ValueError(
                f"name {self.name!r} is the folder of published models in the store; set another "
                "name"
            )
        if self.compares_with_published and self.publish.name is None:
            raise ValueError(
                "a rule of gate is against 'published', but publish.name is not set; set it to the "
                "published model's name"
            )
        if self.model.quantization == "nf4" and self.training.method == "full":
            raise ValueError(
                "model.quantization: got 'nf4', but training.method is full, and weights of 4 bits "
                "cannot be trained; set training.method: lora, or model.quantization: none"
            )
        if self.lora.also_train != "auto" and self.training.method == "full":
            raise ValueError(
                f"lora.also_train: got {list(self.lora.also_train)}, but training.method is full, "
                "which trains every layer; remove it, or set training.method: lora"
            )
        if not self.data.holds_out and (self.gate_rules or self.evaluation.metrics):
            raise ValueError(
                "gate and evaluation.metrics measure held-out conversations, but "
                "data.held_out_share is 0; remove them, or hold out a share"
            )
        if not self.data.holds_out and self.evaluation.lm_eval.tasks:
            raise ValueError(
                "evaluation.lm_eval.tasks are measured together with the held-out loss, but "
                "data.held_out_share is 0; remove them, or hold out a share"
            )
        unnamed = self._tasks_not_named()
        if unnamed:
            raise ValueError(
                f"a rule of gate is about the task {unnamed[0]!r}, which is not in "
                "evaluation.lm_eval.tasks; add it there"
            )
        if "pattern" in self.metrics_on_answers and self.evaluation.pattern is None:
            raise ValueError(
                "the metric 'pattern' needs evaluation.pattern, a regular expression; set it"
            )
        return self

    def _tasks_not_named(self) -> list[str]:
        """Tasks of rules that `evaluation.lm_eval.tasks` does not name."""
        of_rules = (rule.task for rule in self.gate_rules)
        return [task for task in of_rules if task and task not in self.evaluation.lm_eval.tasks]

    @property
    def gate_rules(self) -> tuple[GateRule, ...]:
        if self.gate == "auto":
            if self.data.holds_out:
                return (GateRule(metric="loss"),)
            return ()
        return self.gate

    @property
    def compares_with_published(self) -> bool:
        return any(rule.against == "published" for rule in self.gate_rules)

    @property
    def metrics_on_answers(self) -> tuple[MeasuredOnAnswers, ...]:
        """Of the evaluation and of the gate's rules, each once."""
        found: list[MeasuredOnAnswers] = list(self.evaluation.metrics)
        for rule in self.gate_rules:
            if is_on_answers(rule.metric) and rule.metric not in found:
                found.append(rule.metric)
        return tuple(dict.fromkeys(found))

    @model_validator(mode="after")
    def _best_is_measured(self) -> Self:
        if self.checkpoints.keep.best is not None and not self.data.holds_out:
            raise ValueError(
                f"checkpoints.keep.best: got {self.checkpoints.keep.best}, but data.held_out_share "
                "is 0, so no held-out loss says which checkpoint is best; remove it, or hold out "
                "a share"
            )
        return self

    @model_validator(mode="after")
    def _exported_is_kept(self) -> Self:
        wanted, keep = self.export.checkpoint, self.checkpoints.keep
        if wanted == "best" and not self.data.holds_out:
            raise ValueError(
                "export.checkpoint: got 'best', but data.held_out_share is 0, so no held-out loss "
                "says which checkpoint is best; set last, or hold out a share"
            )
        if wanted == "best" and keep != KeepSpec() and keep.best is None and keep.every != 1:
            raise ValueError(
                "export.checkpoint: got 'best', but checkpoints.keep may remove that one; set "
                "checkpoints.keep.best: 1"
            )
        if isinstance(wanted, int) and wanted > self.training.epochs:
            raise ValueError(
                f"export.checkpoint: got {wanted}, must be last, best or an epoch up to "
                f"training.epochs, {self.training.epochs}"
            )
        return self

    @property
    def run_uri(self) -> str:
        """Folder of the run in the store: `<store>/<name>`."""
        return f"{self.store.rstrip('/')}/{self.name}"

    @property
    def digest(self) -> str:
        """sha256, in hex, of the spec with every default filled in: equal for specs that ask the
        same."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
