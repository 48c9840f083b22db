"""Spec, model and the layers that LoRA is put beside -> LoRA's values, each with its reason."""

from components.render_config.decision import Section
from components.render_config.model.shapes import Architecture
from components.render_config.model.targets import Targets, lora_targets
from components.render_config.setting import NOTHING_ELSE, AlsoTrained, Setting
from components.shared.documents.plan import LoraPlan
from components.shared.errors import ModelError
from components.shared.spec.run_spec import RunSpec
from components.shared.spec.training import LoraSpec

EXPERTS = (
    "lora.targets: experts are trained too, and PEFT makes all their weights anew in each pass "
    "(lora.targets: attention leaves them out)",
    "serving: vLLM may drop an adapter of experts (PEFT's target_parameters) without an error "
    "(vllm-project/vllm#41384); compare answers before you serve it",
)


DORA = (
    "lora.dora: each pass makes every adapted weight anew, which the planned time does not count; "
    "--probe measures it"
)


def choose_targets(spec: RunSpec, architecture: Architecture) -> Targets:
    """Raises ModelError as `lora_targets`, or with all that LoRA of experts does not allow."""
    targets = lora_targets(spec.lora.targets, architecture)
    if spec.training.method != "lora" or not targets.parameters:
        return targets
    problems: list[str] = []
    if spec.lora.dropout:
        problems.append(
            f"lora.dropout: got {spec.lora.dropout}, must be 0 where experts are trained, as PEFT "
            "has none for 3-D parameters; set lora.dropout: 0, or lora.targets: attention"
        )
    if spec.lora.dora:
        problems.append(
            "lora.dora: got true, must be false where experts are trained, as PEFT has none for "
            "3-D parameters; set lora.dora: false, or lora.targets: attention"
        )
    if spec.export.merge is True:
        problems.append(
            "export.merge: found true, allowed auto or false where experts are trained, whose "
            "adapter cannot be merged. Fix: set export.merge: false, or lora.targets: attention"
        )
    if problems:
        raise ModelError(*problems)
    return targets


def choose_lora(setting: Setting) -> Section[LoraPlan | None]:
    """None in full training."""
    if setting.full:
        return Section(None, {"num_trainable": "training.method is full: every parameter"})
    spec, architecture = setting.spec, setting.architecture
    lora = lora_plan(spec.lora, setting.targets, setting.also)
    reasons = {
        "lora.rank": _why_rank(spec.lora),
        "lora.alpha": _why_alpha(spec.lora),
        "lora.target_modules": f"{_layers(spec.lora, architecture)} ({architecture.model_type})",
        "num_trainable": (
            f"rank {lora.rank} x (inputs + outputs) of {len(lora.target_modules)} layers x "
            f"{architecture.num_blocks} blocks"
        ),
    }
    if lora.plus_ratio != 1:
        reasons["lora.plus_ratio"] = (
            f"as the spec asks: A matrices learn at the plan's learning rate, B matrices at "
            f"{lora.plus_ratio:g} times as much"
        )
    else:
        reasons["lora.plus_ratio"] = "hagane's default: A and B matrices learn at one rate"
    if lora.target_parameters:
        experts = architecture.experts[0].num_experts
        reasons["lora.target_parameters"] = (
            f"{experts} experts lie in one 3-D parameter, which is no linear layer; each gets its "
            "own"
        )
        reasons["num_trainable"] += f", and of {experts} experts' matrices"
    if lora.dora:
        reasons["num_trainable"] += ", and a length for each output of each layer"
    if setting.also.num_parameters:
        reasons["num_trainable"] += f", and {setting.also.num_parameters:,} of the vocabulary"
    if lora.fan_in_fan_out:
        reasons["lora.fan_in_fan_out"] = (
            "the layers are Conv1D, which stores its weight as (inputs, outputs)"
        )
    cautions = EXPERTS if setting.experts_adapted else ()
    if lora.dora:
        cautions = (*cautions, DORA)
    return Section(lora, reasons, cautions)


def lora_plan(asked: LoraSpec, targets: Targets, also: AlsoTrained = NOTHING_ELSE) -> LoraPlan:
    return LoraPlan(
        rank=asked.rank,
        alpha=asked.alpha,
        rslora=asked.rslora,
        dora=asked.dora,
        plus_ratio=asked.plus_ratio,
        dropout=asked.dropout,
        target_modules=targets.modules,
        target_parameters=targets.parameters,
        exclude_modules=targets.exclude,
        fan_in_fan_out=targets.fan_in_fan_out,
        also_train=also.whole,
        new_rows=also.new_rows,
    )


def _why_rank(asked: LoraSpec) -> str:
    if asked.rank != LoraSpec().rank:
        return "as the spec asks"
    return (
        "hagane's default; where LoRA is on all linear layers, quality hardly depends on the rank "
        "(QLoRA, arXiv 2305.14314, appendix A)"
    )


def _why_alpha(asked: LoraSpec) -> str:
    if asked.rslora:
        by = f"sqrt({asked.rank})"
    else:
        by = str(asked.rank)
    set_by = "hagane's default"
    if asked.alpha != LoraSpec().alpha:
        set_by = "as the spec asks"
    return f"{set_by}; the update is scaled by {asked.alpha:g} / {by}"


def _layers(asked: LoraSpec, architecture: Architecture) -> str:
    """What the spec's word for the target layers stands for."""
    if asked.targets == "attention":
        return "the layers of attention"
    if asked.targets == "mlp":
        return "the layers of the MLPs, never a router"
    if asked.targets not in ("auto", "all"):
        return "as the spec lists them"
    missed = architecture.unreachable
    if missed:
        but = f" but {', '.join(missed)}, which PEFT cannot reach"
    else:
        but = ""
    return f"all linear layers of the blocks{but}, never the head or a router"
