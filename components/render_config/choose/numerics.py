"""What keeps the losses right: in which precision gradients are summed, and which part of a
mixture's loss is left out."""

from collections.abc import Mapping
from typing import Any, Literal

from components.render_config.decision import Decision
from components.render_config.setting import MANY_MICRO_BATCHES, Setting
from components.shared.documents.plan import StepPlan, ZeroPlan


def choose_gradient_sums(setting: Setting, zero: ZeroPlan, steps: StepPlan) -> Decision[bool]:
    """Whether gradients of 16 bits are summed over a step's micro-batches in fp32."""
    in_fp32 = setting.sums_in_fp32(zero, steps.micro_batch)
    made = f"a step sums {steps.grad_accum} micro-batch{'es' if steps.grad_accum != 1 else ''}"
    if setting.weight_bytes == 4:
        return Decision(in_fp32, f"{made}; gradients are fp32 already")
    rule = f"from {MANY_MICRO_BATCHES} on, ZeRO-2 and 3 sum gradients of 16 bits in fp32"
    return Decision(in_fp32, f"{made}; {rule}")


def choose_router_loss(
    setting: Setting, config: Mapping[str, Any]
) -> Decision[Literal["none", "left out"]]:
    """The auxiliary loss of a mixture's router is left out where config.json adds it."""
    if not setting.architecture.experts:
        return Decision("none", "the model has no experts")
    if not config.get("output_router_logits", False):
        return Decision("none", "config.json does not ask for it (output_router_logits)")
    once = "would count once for each micro-batch and process"
    return Decision(
        "left out",
        f"config.json asks for it (output_router_logits); it {once}",
        (
            "model: config.json adds the router's auxiliary loss (output_router_logits: true); "
            f"training leaves it out, since it {once}",
        ),
    )
