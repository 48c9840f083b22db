"""The number format of the forward and backward pass, by what the machine that trains computes fast."""

import platform
from typing import Literal

from components.render_config.cost.hardware import UNNAMED_GPU
from components.shared.documents.plan import Precision
from components.shared.errors import SpecError
from components.shared.machine import BF16_FLAGS

WEIGHT_BYTES: dict[Precision, int] = {"bf16": 2, "fp16": 2, "fp32": 4}

BEYOND_FP16 = "gemma"
"""Model types that begin so. Seen of Gemma 3 and 4 (transformers issue 39972), probable of 1 and 2, whose embeddings are scaled alike."""


def choose_precision(
    asked: Literal["auto", "bf16", "fp32"], flags: frozenset[str], *, gpu: str | None = None, gpu_has_bf16: bool = True
) -> tuple[Precision, str]:
    """The format and why. `gpu` is the GPU that the spec names; else this machine counts.

    Raises:
        SpecError: bf16 is asked of a GPU that has none, where torch would fail at the start or compute it a number at a time.
    """
    if asked == "bf16" and not gpu_has_bf16:
        raise SpecError(f"training.precision: got 'bf16', but the {gpu} does not compute it; set auto, which is fp16 there, or fp32")
    on_cpu, fast = gpu is None and "cuda" not in flags, sorted(BF16_FLAGS & flags)
    if asked != "auto":
        slow = f"; this processor ({platform.machine()}) has no bf16 instructions and is some 70 times slower than in fp32"
        return asked, "as training.precision asks" + (slow if asked == "bf16" and on_cpu and not fast else "")
    if gpu == UNNAMED_GPU:
        return "bf16", "training.precision is auto and a GPU is taken to compute bf16; name one from before 2020 in hardware.gpu"
    if gpu is not None:
        if gpu_has_bf16:
            return "bf16", f"training.precision is auto and the {gpu} computes bf16"
        return "fp16", f"training.precision is auto and the {gpu} has fp16 and no bf16; the loss is scaled to keep small gradients"
    if not on_cpu:
        return "bf16", "training.precision is auto and this machine has a GPU"
    if fast:
        return "bf16", f"training.precision is auto and this processor computes bf16 ({fast[0]})"
    return "fp32", f"training.precision is auto and this processor ({platform.machine()}) has no bf16 instructions"


def precision_of_model(precision: Precision, why: str, model_type: str) -> tuple[Precision, str]:
    """fp32 in fp16's place for a model whose activations fp16 cannot hold, and why; else what was chosen."""
    if precision == "fp16" and model_type.startswith(BEYOND_FP16):
        return "fp32", (
            f"training.precision is auto, and a {model_type} model's activations pass 65,504, the largest number of fp16 "
            "(transformers issue 39972): each step would be skipped for its overflow"
        )
    return precision, why
