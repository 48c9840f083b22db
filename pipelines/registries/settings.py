"""What decided what a run learned, as a registry's parameters."""

from typing import Any

from components.shared.documents.plan import Plan
from components.shared.spec.run_spec import RunSpec


def settings(spec: RunSpec, plan: Plan | None) -> dict[str, str]:
    """`training.lr_peak` and the like -> value: the spec's, and in place of each `auto` what the
    plan chose.

    `plan`: None where it is gone; then an `auto` stays.
    """
    found: dict[str, Any] = {"model.source": spec.model.source, "data.train": spec.data.train_name}
    found["model.revision"] = spec.model.revision
    sections = {"training": spec.training, "zero": spec.zero}
    if spec.training.method == "lora":
        sections["lora"] = spec.lora
    for section, values in sections.items():
        tree = values.model_dump(mode="json")
        found |= {f"{section}.{key}": value for key, value in tree.items()}
    if plan is not None:
        found |= chosen(plan)
    return {key: str(value) for key, value in found.items() if value is not None}


def chosen(plan: Plan) -> dict[str, Any]:
    """By the names of the spec's fields, and what no field asks for as `plan.…`."""
    steps, zero = plan.steps, plan.zero
    chunked = plan.loss_chunk_tokens is not None
    found = {
        "model.revision": plan.model.revision,
        "training.lr_peak": plan.learning_rate,
        "training.micro_batch": steps.micro_batch,
        "training.precision": plan.precision,
        "training.attention": plan.attention or "the model's own",
        "training.output_layer": "trained_tokens" if chunked else "all_tokens",
        "zero.stage": zero.stage,
        "zero.offload_optimizer": _device(in_host_memory=zero.offload_optimizer),
        "zero.offload_parameters": _device(in_host_memory=zero.offload_parameters),
        "plan.grad_accum": steps.grad_accum,
        "plan.num_processes": steps.num_processes,
        "plan.total_steps": steps.total_steps,
        "plan.warmup_steps": steps.warmup_steps,
        "plan.num_trainable": plan.num_trainable,
    }
    if plan.lora is not None:
        found["lora.targets"] = ", ".join(plan.lora.target_modules + plan.lora.target_parameters)
        found["lora.also_train"] = ", ".join(plan.lora.also_train) or "none"
    return found


def _device(*, in_host_memory: bool) -> str:
    if in_host_memory:
        return "cpu"
    return "none"
