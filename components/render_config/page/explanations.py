"""Decisions -> sentences: the plan's verdict, its cautions, and a reason for each value."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from components.render_config.choose.checkpoints import state_bytes
from components.render_config.choose.zero_options import gib
from components.render_config.cost.memory import MANY_MICRO_BATCHES
from components.shared.documents.plan import LoraPlan, StepPlan, TimePlan
from components.shared.documents.prompts import probe_bytes
from components.shared.figures import plural, time_range
from components.shared.spec.run_spec import RunSpec
from components.shared.spec.training import LoraSpec

if TYPE_CHECKING:
    from components.render_config.planner import Decided


def verdict(spec: RunSpec, decided: "Decided", steps: StepPlan, time: TimePlan | None) -> str:
    """What fits where and how long it takes, in one sentence."""
    hardware, choice = decided.hardware, decided.choice
    what = "LoRA" if spec.training.method == "lora" else "Full training"
    device = (
        f"{hardware.num_processes} x {hardware.gpu}"
        if hardware.gpu is not None
        else _many(hardware.num_processes, "CPU process")
    )
    fill: list[str] = []
    if hardware.gpu_bytes is not None:
        fill.append(f"{gib(choice.memory.gpu_bytes)} of {gib(hardware.gpu_bytes)} per GPU")
    if hardware.host_bytes is not None:
        fill.append(
            f"{gib(choice.memory.host_bytes)} of {gib(hardware.host_bytes)} of host memory per node"
        )
    elif hardware.gpu_bytes is not None:
        fill.append(f"{gib(choice.memory.host_bytes)} of host memory per node")
    name = spec.model.source.rstrip("/").rsplit("/", 1)[-1]
    return (
        f"{what} of {name} ({decided.architecture.num_parameters / 1e9:.2f}B) fits {device} with "
        f"{choice.zero.name}, micro-batch {choice.micro_batch}: "
        f"{', '.join(fill) or _host_alone(choice.memory.host_bytes)}; "
        f"{plural(steps.total_steps, 'step')}{time_words(time)}"
    )


def time_words(time: TimePlan | None) -> str:
    """The end of a verdict; empty where nothing is known of the time."""
    return "" if time is None else f", in about {_hours(time)}{price_words(time)}"


def _host_alone(num_bytes: int) -> str:
    return f"{gib(num_bytes)} of host memory per node"


def _hours(time: TimePlan) -> str:
    return time_range(time.hours * 3600, time.hours_low * 3600, time.hours_high * 3600)


def price_words(time: TimePlan) -> str:
    return "" if time.price is None else f", for about {time.price_with_currency}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("es" if count != 1 else "")


def rows_in_conversations(num_conversations: int, packed: StepPlan, alone: StepPlan) -> str:
    """Steps of packed rows, and what they would be with one conversation per row."""
    return (
        f"{plural(num_conversations, 'conversation')} in {plural(packed.num_rows, 'packed row')}: "
        f"{plural(packed.total_steps, 'step')}, a checkpoint every {packed.steps_per_epoch:,}; "
        f"with one conversation per row (data.packing: false) {plural(alone.total_steps, 'step')}, "
        f"a checkpoint every {alone.steps_per_epoch:,}"
    )


def model_cautions(spec: RunSpec, decided: "Decided") -> Iterator[str]:
    """What is known of the model by name or type that a person should hear before training."""
    if spec.data.packing == "auto" and not decided.packing.packed:
        yield (
            f"data.packing: each row holds one conversation, since {decided.packing.reason}; "
            f"training.global_batch {spec.training.global_batch} counts conversations"
        )
    if decided.known is not None:
        family, model = decided.known
        if family.merge and spec.training.method == "lora":
            yield (
                f"serving: vLLM has no LoRA for {family.model_type}, so the adapter of "
                f"{model.name} must be merged to be served by it"
            )
        if model.template == "none" and spec.data.chat_template == "model":
            yield (
                f"data.chat_template: {model.name} is a base model without a template; set one, "
                "such as specs/templates/plain.jinja"
            )
    if decided.setting.targets.experts and spec.training.method == "lora":
        yield (
            "lora.targets: experts are trained too, and PEFT makes all their weights anew in each "
            "pass (lora.targets: attention leaves them out)"
        )
        yield (
            "serving: vLLM may drop an adapter of experts (PEFT's target_parameters) without an "
            "error (vllm-project/vllm#41384); compare answers before you serve it"
        )
    if decided.asks_for_router_loss:
        yield (
            "model: config.json adds the router's auxiliary loss (output_router_logits: true); "
            "training leaves it out, since it would count once for each micro-batch and process"
        )


def reasons(
    spec: RunSpec, decided: "Decided", steps: StepPlan, lora: LoraPlan | None
) -> dict[str, str]:
    """Field of the plan, dotted -> why."""
    training, zero = spec.training, decided.choice.zero
    counted = "left out" if training.drop_last else "counted"
    epoch_steps = plural(steps.steps_per_epoch, "step")
    rows = "packed rows" if decided.packing.packed else "rows of one conversation"
    found = {
        "precision": decided.why_precision,
        "zero": decided.choice.why_zero,
        "steps.micro_batch": decided.choice.why_micro_batch,
        "steps.grad_accum": (
            f"global_batch {steps.global_batch} / (micro_batch {steps.micro_batch} x "
            f"{_many(steps.num_processes, 'process')})"
        ),
        "packed": decided.packing.reason,
        "steps.steps_per_epoch": (
            f"{steps.num_rows} {rows} in batches of {steps.global_batch}, a last short one "
            f"{counted}"
        ),
        "steps.total_steps": f"{epoch_steps} x {_epochs(training.epochs)}",
        "steps.save_steps": (f"a checkpoint at the end of each epoch: every {epoch_steps}"),
        "steps.warmup_steps": (
            f"{training.warmup_share:g} of {plural(steps.total_steps, 'step')}, rounded up"
        ),
        "attention": decided.attention.reason,
        "loss_chunk_tokens": decided.output_layer.reason,
        "fp32_gradient_sums": _why_sums(decided, steps),
        "router_loss": _why_router_loss(decided),
        "model.num_parameters": (
            f"counted from the config of a {decided.architecture.model_type} model with "
            f"{decided.architecture.num_blocks} blocks"
        ),
    }
    if training.max_steps is not None:
        found["steps.total_steps"] = (
            f"the fewer of max_steps {training.max_steps} and {found['steps.total_steps']}"
        )
    if lora is None:
        found["num_trainable"] = "training.method is full: every parameter"
        found["checkpoints.bytes_each"] = (
            f"{state_bytes(zero, decided.precision)} bytes of optimizer state a parameter"
        )
    else:
        found |= _lora_reasons(spec, decided, lora)
    if zero.stage < 3:
        found["checkpoints.bytes_each"] += f"; with {zero.name} the trained weights once more"
    megabytes = probe_bytes(decided.architecture.vocabulary) / 1e6
    found["checkpoints.bytes_each"] += (
        f"; {megabytes:.2g} MB of logits, by which its export is verified"
    )
    return found


def _why_sums(decided: "Decided", steps: StepPlan) -> str:
    made = f"a step sums {_many(steps.grad_accum, 'micro-batch')}"
    if decided.setting.weight_bytes == 4:
        return f"{made}; gradients are fp32 already"
    return f"{made}; from {MANY_MICRO_BATCHES} on, ZeRO-2 and 3 sum gradients of 16 bits in fp32"


def _why_router_loss(decided: "Decided") -> str:
    if not decided.architecture.experts:
        return "the model has no experts"
    if not decided.asks_for_router_loss:
        return "config.json does not ask for it (output_router_logits)"
    return (
        "config.json asks for it (output_router_logits); it would count once for each micro-batch "
        "and process"
    )


def _epochs(epochs: int) -> str:
    return f"{epochs} epoch" + ("s" if epochs != 1 else "")


def _everything(decided: "Decided") -> str:
    """What `auto` trains of this model, and which linear layers of its blocks it cannot."""
    missed = decided.architecture.unreachable
    but = f" but {', '.join(missed)}, which PEFT cannot reach" if missed else ""
    return f"all linear layers of the blocks{but}, never the head or a router"


def _why_rank(spec: RunSpec) -> str:
    if spec.lora.rank != LoraSpec().rank:
        return "as the spec asks"
    return (
        "hagane's default; where LoRA is on all linear layers, quality hardly depends on the rank "
        "(QLoRA, arXiv 2305.14314, appendix A)"
    )


def _why_alpha(spec: RunSpec, lora: LoraPlan) -> str:
    by = f"sqrt({lora.rank})" if lora.rslora else str(lora.rank)
    asked = "hagane's default" if spec.lora.alpha == LoraSpec().alpha else "as the spec asks"
    return f"{asked}; the update is scaled by {lora.alpha:g} / {by}"


def _lora_reasons(spec: RunSpec, decided: "Decided", lora: LoraPlan) -> dict[str, str]:
    architecture = decided.architecture
    everything = _everything(decided)
    words = {
        "auto": everything,
        "all": everything,
        "attention": "the layers of attention",
        "mlp": "the layers of the MLPs, never a router",
    }
    what = words.get(str(spec.lora.targets), "as the spec lists them")
    found = {
        "lora.rank": _why_rank(spec),
        "lora.alpha": _why_alpha(spec, lora),
        "lora.target_modules": f"{what} ({architecture.model_type})",
        "num_trainable": (
            f"rank {lora.rank} x (inputs + outputs) of {len(lora.target_modules)} layers x "
            f"{architecture.num_blocks} blocks"
        ),
        "checkpoints.bytes_each": (
            f"{state_bytes(decided.choice.zero, decided.precision)} bytes of optimizer state + 4 "
            "of the matrix itself a trainable parameter; no frozen weight"
        ),
    }
    if lora.target_parameters:
        experts = architecture.experts[0].num_experts
        found["lora.target_parameters"] = (
            f"{experts} experts lie in one 3-D parameter, which is no linear layer; each gets its "
            "own"
        )
        found["num_trainable"] += f", and of {experts} experts' matrices"
    if lora.fan_in_fan_out:
        found["lora.fan_in_fan_out"] = (
            "the layers are Conv1D, which stores its weight as (inputs, outputs)"
        )
    return found
