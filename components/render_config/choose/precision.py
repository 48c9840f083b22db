"""The number format of the forward and backward pass, by what the machine that trains computes
fast."""

import platform
from typing import Literal

from components.render_config.cost.hardware import UNNAMED_GPU, Hardware
from components.render_config.decision import Decision
from components.shared.documents.plan import Precision
from components.shared.errors import SpecError
from components.shared.machine import BF16_FLAGS, computes_bf16
from components.shared.spec.run_spec import RunSpec

BEYOND_FP16 = "gemma"
"""Model types that begin so. Seen of Gemma 3 and 4 (transformers issue 39972), probable of 1 and 2,
whose embeddings are scaled alike."""
AS_ASKED = "as training.precision asks"
AUTO = "training.precision is auto"


def precision_of(spec: RunSpec, hardware: Hardware) -> Decision[Precision]:
    """As `choose_precision`; of a cluster's CPUs, whose processors are not known, fp32."""
    asked = spec.training.precision
    if spec.backend != "local" and hardware.gpu is None:
        if asked != "auto":
            return Decision(asked, AS_ASKED)
        return Decision(
            "fp32",
            f"{AUTO}, and what processors the cluster's nodes have is not known; set bf16 where "
            "they compute it",
        )
    has_bf16 = hardware.device is None or hardware.device.bf16
    return choose_precision(asked, hardware.flags, gpu=hardware.gpu, gpu_has_bf16=has_bf16)


def choose_precision(
    asked: Literal["auto", "bf16", "fp32"],
    flags: frozenset[str],
    *,
    gpu: str | None = None,
    gpu_has_bf16: bool = True,
) -> Decision[Precision]:
    """`gpu` is the GPU that the spec names; else the machine with these flags counts.

    Raises:
        SpecError: bf16 is asked of a GPU that has none, where torch would fail at the start or
            compute it a number at a time.
    """
    if asked == "bf16" and not gpu_has_bf16:
        raise SpecError(
            f"training.precision: got 'bf16', but the {gpu} does not compute it; set auto, which "
            "is fp16 there, or fp32"
        )
    if asked != "auto":
        if asked == "bf16" and gpu is None:
            slow = _slow_bf16(flags)
        else:
            slow = ""
        return Decision(asked, AS_ASKED + slow)
    if gpu is None:
        return _of_machine(flags)
    if gpu == UNNAMED_GPU:
        return Decision(
            "bf16",
            f"{AUTO} and a GPU is taken to compute bf16; name one from before 2020 in hardware.gpu",
        )
    if gpu_has_bf16:
        return Decision("bf16", f"{AUTO} and the {gpu} computes bf16")
    return Decision(
        "fp16",
        f"{AUTO} and the {gpu} has fp16 and no bf16; the loss is scaled to keep small gradients",
    )


def _slow_bf16(flags: frozenset[str]) -> str:
    """What is to be known of bf16 on this machine."""
    if "cuda" in flags or computes_bf16(flags):
        return ""
    return (
        f"; this processor ({platform.machine()}) has no bf16 instructions and is some 70 times "
        "slower than in fp32"
    )


def _of_machine(flags: frozenset[str]) -> Decision[Precision]:
    if "cuda" in flags:
        return Decision("bf16", f"{AUTO} and this machine has a GPU")
    fast = sorted(BF16_FLAGS & flags)
    if fast:
        return Decision("bf16", f"{AUTO} and this processor computes bf16 ({fast[0]})")
    return Decision(
        "fp32", f"{AUTO} and this processor ({platform.machine()}) has no bf16 instructions"
    )


def precision_of_model(chosen: Decision[Precision], model_type: str) -> Decision[Precision]:
    """fp32 in fp16's place for a model whose activations fp16 cannot hold; else what was chosen."""
    if chosen.value != "fp16" or not model_type.startswith(BEYOND_FP16):
        return chosen
    return Decision(
        "fp32",
        f"{AUTO}, and a {model_type} model's activations pass 65,504, the largest number of fp16 "
        "(transformers issue 39972): each step would be skipped for its overflow",
    )
