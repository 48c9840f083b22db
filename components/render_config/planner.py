"""Spec + dataset manifest + config.json -> the plan, each decided value with its reason. Pure: values in, a value out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from components.render_config.architectures import architecture_of
from components.render_config.precision import Precision, choose_precision
from components.render_config.shapes import Architecture
from components.render_config.steps import grad_accum_steps, plan_steps
from components.render_config.targets import Targets, lora_targets, num_lora_parameters
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


def check_spec(spec: RunSpec, config: Mapping[str, Any]) -> None:
    """Raises HaganeError with all that is wrong with the model, the LoRA targets, the row length and the batch sizes."""
    problems: list[str] = []

    def collect(check: Callable[[], object]) -> None:
        try:
            check()
        except HaganeError as error:
            problems.extend(error.problems)

    collect(lambda: _check_targets(spec, config))
    collect(lambda: _check_row_tokens(spec, config))
    collect(lambda: _grad_accum(spec))
    if problems:
        raise HaganeError(*problems)


def _check_targets(spec: RunSpec, config: Mapping[str, Any]) -> None:
    targets = lora_targets(spec.lora.targets, architecture_of(config))
    if spec.training.method == "lora" and targets.parameters and spec.lora.dropout:
        raise ModelError(
            f"lora.dropout: got {spec.lora.dropout}, must be 0 where experts are trained, as PEFT has none for 3-D parameters; "
            "set lora.dropout: 0, or lora.targets: attention"
        )


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
        lora = lora_plan(spec, targets)
        num_trainable = num_lora_parameters(targets, spec.lora.rank)
    return Plan(
        run=spec.name,
        method=training.method,
        precision=precision,
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
        checkpoints=plan_checkpoints(spec, steps, precision, num_trainable),
        reasons={"precision": why_precision, **_reasons(spec, steps, architecture, lora)},
    )


def lora_plan(spec: RunSpec, targets: Targets) -> LoraPlan:
    return LoraPlan(
        rank=spec.lora.rank,
        alpha=spec.lora.alpha,
        dropout=spec.lora.dropout,
        target_modules=targets.modules,
        target_parameters=targets.parameters,
        exclude_modules=targets.exclude,
        fan_in_fan_out=targets.fan_in_fan_out,
    )


def plan_checkpoints(spec: RunSpec, steps: StepPlan, precision: Precision, num_trainable: int) -> CheckpointPlan:
    """Bytes of checkpoints. LoRA: optimizer state and the matrices themselves; full: the state, which holds the weights.

    ZeRO-2 does not divide the weights, so process 0 writes them once more, in training precision.
    """
    weight_bytes = {"bf16": 2, "fp32": 4}[precision]
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
        reasons |= _lora_reasons(spec, architecture, lora)
        reasons["checkpoints.bytes_each"] = (
            f"{STATE_BYTES} bytes of optimizer state + 4 of the matrix itself a trainable parameter; no frozen weight"
        )
    if spec.zero.stage == 3 and spec.zero.offload_parameters == "cpu":
        reasons["zero"] = "as the spec asks: stage 3, parameters in host memory between uses"
    return reasons


def _lora_reasons(spec: RunSpec, architecture: Architecture, lora: LoraPlan) -> dict[str, str]:
    everything = "all linear layers of the blocks, never the head or a router"
    words = {"auto": everything, "all": everything, "attention": "the layers of attention", "mlp": "the layers of the MLPs, never a router"}
    what = words.get(str(spec.lora.targets), "as the spec lists them")
    reasons = {
        "lora.target_modules": f"{what} ({architecture.model_type})",
        "num_trainable": f"rank {lora.rank} x (inputs + outputs) of {len(lora.target_modules)} layers x {architecture.num_blocks} blocks",
    }
    if lora.target_parameters:
        experts = architecture.experts[0].num_experts
        reasons["lora.target_parameters"] = f"{experts} experts lie in one 3-D parameter, which is no linear layer; each gets its own"
        reasons["num_trainable"] += f", and of {experts} experts' matrices"
    if lora.fan_in_fan_out:
        reasons["lora.fan_in_fan_out"] = "the layers are Conv1D, which stores its weight as (inputs, outputs)"
    return reasons
