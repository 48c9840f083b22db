"""Spec + dataset manifest + config.json -> the plan, each decided value with its reason. Pure: values in, a value out."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from components.render_config.architectures import Architecture, architecture_of, lora_targets, num_lora_parameters
from components.render_config.checkpoints import STATE_BYTES, checkpoint_reasons, plan_checkpoints
from components.render_config.precision import Precision, choose_precision
from components.render_config.steps import grad_accum_steps, plan_steps
from components.shared.errors import HaganeError, ModelError
from components.shared.plan import LoraPlan, ModelPlan, Plan, StepPlan
from components.shared.spec import HOW_NOT_WHAT, RunSpec


@dataclass(frozen=True)
class DatasetFacts:
    """What planning needs of the dataset's manifest."""

    digest: str
    """Of the dataset's manifest: it stands for every row."""
    num_rows: int
    num_tokens: int
    model_revision: str | None


def check_spec(spec: RunSpec, config: Mapping[str, Any]) -> None:
    """Raises HaganeError with all that is wrong with the model, the LoRA targets, the row length and the batch sizes."""
    problems: list[str] = []

    def collect(check: Callable[[], object]) -> None:
        try:
            check()
        except HaganeError as error:
            problems.extend(error.problems)

    collect(lambda: lora_targets(spec.lora.targets, architecture_of(config)))
    collect(lambda: _check_row_tokens(spec, config))
    collect(lambda: _grad_accum(spec))
    if problems:
        raise HaganeError(*problems)


def _check_row_tokens(spec: RunSpec, config: Mapping[str, Any]) -> None:
    longest = config.get("max_position_embeddings")
    if longest is not None and spec.data.row_tokens > longest:
        raise ModelError(f"data.row_tokens: got {spec.data.row_tokens}, the model's max_position_embeddings allows at most {longest}")


def _num_processes(spec: RunSpec) -> int:
    return spec.hardware.num_nodes * spec.hardware.processes_per_node


def _grad_accum(spec: RunSpec) -> int:
    training = spec.training
    return grad_accum_steps(global_batch=training.global_batch, micro_batch=training.micro_batch, num_processes=_num_processes(spec))


def make_plan(spec: RunSpec, dataset: DatasetFacts, config: Mapping[str, Any], *, machine: frozenset[str]) -> Plan:
    """The whole plan, for a machine with these flags (precision.py). Raises HaganeError as `check_spec` does."""
    check_spec(spec, config)
    training, architecture = spec.training, architecture_of(config)
    targets = lora_targets(spec.lora.targets, architecture)
    steps = plan_steps(
        num_rows=dataset.num_rows,
        epochs=training.epochs,
        micro_batch=training.micro_batch,
        grad_accum=_grad_accum(spec),
        num_processes=_num_processes(spec),
        warmup_share=training.warmup_share,
        num_tokens=dataset.num_tokens,
    )
    precision, why_precision = choose_precision(training.precision, machine)
    lora = None
    num_trainable = architecture.num_parameters
    if training.method == "lora":
        lora = LoraPlan(rank=spec.lora.rank, alpha=spec.lora.alpha, dropout=spec.lora.dropout, target_modules=targets)
        num_trainable = num_lora_parameters(targets, spec.lora.rank, architecture)
    checkpoints = plan_checkpoints(spec, steps, precision=precision, num_trainable=num_trainable)
    return Plan(
        run=spec.name,
        method=training.method,
        precision=precision,
        num_trainable=num_trainable,
        training_digest=training_digest(spec, dataset, precision),
        zero_stage=spec.zero.stage,
        model=ModelPlan(
            source=spec.model.source,
            revision=dataset.model_revision,
            model_type=architecture.model_type,
            num_parameters=architecture.num_parameters,
            largest_layer_parameters=architecture.largest_layer_parameters,
        ),
        steps=steps,
        lora=lora,
        checkpoints=checkpoints,
        reasons={"precision": why_precision, **_reasons(spec, steps, architecture, lora), **checkpoint_reasons(spec, checkpoints)},
    )


def training_digest(spec: RunSpec, dataset: DatasetFacts, precision: Precision) -> str:
    """sha256, in hex, of all that the losses follow from: the spec but for how the work is done, where, and what comes after it."""
    asked = spec.model_dump(mode="json", exclude={"name", "store", "backend", "evaluation"})
    for field in HOW_NOT_WHAT:
        section, _, key = field.partition(".")
        if key:
            del asked[section][key]
        else:
            del asked[section]
    return hashlib.sha256(json.dumps([asked, dataset.digest, precision], sort_keys=True).encode()).hexdigest()


def _reasons(spec: RunSpec, steps: StepPlan, architecture: Architecture, lora: LoraPlan | None) -> dict[str, str]:
    reasons = {
        "steps.grad_accum": f"global_batch {steps.global_batch} / (micro_batch {steps.micro_batch} x {steps.num_processes} processes)",
        "steps.steps_per_epoch": f"{steps.num_rows} packed rows in batches of {steps.global_batch}, the last one counted",
        "steps.total_steps": f"{steps.steps_per_epoch} steps x {spec.training.epochs} epochs",
        "steps.save_steps": f"a checkpoint at the end of each epoch: every {steps.steps_per_epoch} steps",
        "steps.warmup_steps": f"{spec.training.warmup_share:g} of {steps.total_steps} steps, rounded up",
        "model.num_parameters": f"counted from the config of a {architecture.model_type} model with {architecture.num_blocks} blocks",
    }
    if lora is None:
        reasons["num_trainable"] = "training.method is full: every parameter"
        reasons["checkpoints.bytes_each"] = f"{STATE_BYTES} bytes of optimizer state, fp32 weights among them, a parameter"
    else:
        asked = "all linear layers of the blocks, never the head" if spec.lora.targets == "auto" else "as the spec lists them"
        reasons["lora.target_modules"] = f"{asked} ({architecture.model_type})"
        reasons["num_trainable"] = (
            f"rank {lora.rank} x (inputs + outputs) of {len(lora.target_modules)} layers x {architecture.num_blocks} blocks"
        )
        reasons["checkpoints.bytes_each"] = (
            f"{STATE_BYTES} bytes of optimizer state + 4 of the matrix itself a trainable parameter; no frozen weight"
        )
    if spec.zero.stage == 3 and spec.zero.offload_parameters == "cpu":
        reasons["zero"] = "as the spec asks: stage 3, parameters in host memory between uses"
    return reasons
