"""Spec + dataset manifest + config.json -> the plan, each decided value with its reason. Pure: values in, a value out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.render_config.architectures import Architecture, architecture_of, lora_targets, num_lora_parameters
from components.render_config.steps import plan_steps
from components.shared.errors import HaganeError, ModelError
from components.shared.plan import CheckpointPlan, LoraPlan, ModelPlan, Plan, StepPlan
from components.shared.spec import RunSpec

# Bytes of optimizer state per trainable parameter: fp32 copy, first and second moment (DeepSpeed bf16_optimizer, stage3).
STATE_BYTES = 12
# What a process adds to a checkpoint whatever the model's size: its RNG state, ZeRO's description of its shards.
PROCESS_BYTES = 20_000


@dataclass(frozen=True)
class DatasetFacts:
    """What planning needs of the dataset's manifest."""

    num_rows: int
    num_tokens: int
    model_revision: str | None


def check_model(spec: RunSpec, config: Mapping[str, Any]) -> tuple[Architecture, tuple[str, ...]]:
    """The model's shapes and its LoRA targets; needs no dataset. Raises ModelError."""
    architecture = architecture_of(config)
    longest = config.get("max_position_embeddings")
    if longest is not None and spec.data.row_tokens > longest:
        raise ModelError(
            f"data.row_tokens: got {spec.data.row_tokens}, the model's max_position_embeddings allows at most {longest}"
        )
    return architecture, lora_targets(spec.lora.targets, architecture)


def make_plan(spec: RunSpec, dataset: DatasetFacts, config: Mapping[str, Any]) -> Plan:
    """The whole plan.

    Raises:
        HaganeError: all that is wrong with the model, the targets and the batch sizes, in one go.
    """
    problems: list[str] = []
    training, hardware = spec.training, spec.hardware
    try:
        architecture, targets = check_model(spec, config)
    except HaganeError as error:
        problems += error.problems
    try:
        steps = plan_steps(
            num_rows=dataset.num_rows,
            epochs=training.epochs,
            global_batch=training.global_batch,
            micro_batch=training.micro_batch,
            num_processes=hardware.num_nodes * hardware.processes_per_node,
            warmup_share=training.warmup_share,
            num_tokens=dataset.num_tokens,
        )
    except HaganeError as error:
        problems += error.problems
    if problems:
        raise HaganeError(*problems)
    lora = None
    num_trainable = architecture.num_parameters
    if training.method == "lora":
        lora = LoraPlan(rank=spec.lora.rank, alpha=spec.lora.alpha, dropout=spec.lora.dropout, target_modules=targets)
        num_trainable = num_lora_parameters(targets, spec.lora.rank, architecture)
    return Plan(
        run=spec.name,
        method=training.method,
        num_trainable=num_trainable,
        model=ModelPlan(
            source=spec.model.source,
            revision=dataset.model_revision,
            model_type=architecture.model_type,
            num_parameters=architecture.num_parameters,
            largest_layer_parameters=architecture.largest_layer_parameters,
        ),
        steps=steps,
        lora=lora,
        checkpoints=plan_checkpoints(spec, steps, architecture, num_trainable),
        reasons=_reasons(spec, steps, architecture, lora, num_trainable),
    )


def plan_checkpoints(spec: RunSpec, steps: StepPlan, architecture: Architecture, num_trainable: int) -> CheckpointPlan:
    """Bytes of checkpoints. LoRA: optimizer state and the matrices themselves; full: the state, which holds the weights.

    ZeRO-2 does not divide the weights, so process 0 writes them once more, in training precision.
    """
    weight_bytes = {"bf16": 2, "fp32": 4}[spec.training.precision]
    bytes_each = STATE_BYTES * num_trainable + PROCESS_BYTES * steps.num_processes
    if spec.training.method == "lora":
        bytes_each += 4 * num_trainable
    if spec.zero.stage == 2:
        bytes_each += weight_bytes * num_trainable
    return CheckpointPlan(
        bytes_each=bytes_each,
        bytes_total=bytes_each * len(steps.save_steps),
        # One checkpoint is written while the one before may still be on its way to the store.
        work_bytes=2 * bytes_each,
    )


def _reasons(
    spec: RunSpec, steps: StepPlan, architecture: Architecture, lora: LoraPlan | None, num_trainable: int
) -> dict[str, str]:
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
