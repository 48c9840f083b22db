"""A frozen base model held in 4 bits, as QLoRA trains on it (arXiv 2305.14314): how transformers
loads it.

bitsandbytes replaces every linear layer but the head by one whose weight is NormalFloat-4, in
blocks of 64 numbers; the blocks' scales are 8-bit numbers themselves ("double quantization",
section 3). Computed is with the weights turned back into the training's number format.
"""

from collections.abc import Mapping
from typing import Any, Final

from components.shared.documents.plan import Plan, Precision, Quantization

DTYPE_NAMES: Final[dict[str, str]] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
BITSANDBYTES = "bitsandbytes"


def quantization_of_files(config: Mapping[str, Any]) -> Quantization:
    """How a config.json says that the weights in the model's files are."""
    if _section(config).get("quant_method") == BITSANDBYTES:
        return "nf4"
    return "none"


def bitsandbytes_problem(config: Mapping[str, Any]) -> str | None:
    """Why weights that bitsandbytes quantized cannot be trained on, if they cannot."""
    section = _section(config)
    kind = section.get("bnb_4bit_quant_type", "fp4")
    if section.get("load_in_4bit") is True and kind == "nf4":
        return None
    if section.get("load_in_4bit") is True:
        found = f"4 bits of kind {kind!r}"
    else:
        found = "8 bits"
    return (
        f"quantization_config: got {found} of bitsandbytes, allowed: nf4 (bnb_4bit_quant_type); "
        "name the model's ordinary weights"
    )


def loading_arguments(
    quantization: Quantization, precision: Precision, config: Mapping[str, Any]
) -> dict[str, Any]:
    """For transformers' from_pretrained, beside the number format. Empty where nothing is
    quantized, or the files are already.

    The 4-bit numbers lie in a tensor of the training's number format: DeepSpeed leaves tensors of
    whole numbers alone, and could not divide them among processes.
    """
    if quantization == "none" or quantization_of_files(config) == quantization:
        return {}
    dtype = DTYPE_NAMES[precision]
    return {
        "quantization_config": {
            "quant_method": BITSANDBYTES,
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": dtype,
            "bnb_4bit_quant_storage": dtype,
        }
    }


def dtype_words(plan: Plan) -> str:
    """Arguments of from_pretrained, as Python source, that load a plan's base as it was trained
    on."""
    if plan.model.quantization == "none" or plan.model.quantized_files:
        return 'dtype="auto"'
    arguments = loading_arguments(plan.model.quantization, plan.precision, {})
    words = (f"{name}={value!r}" for name, value in arguments.items())
    return ", ".join([f'dtype="{DTYPE_NAMES[plan.precision]}"', *words])


def compute_in(model: Any, dtype: Any) -> None:
    """Quantized layers of the model compute in `dtype`, whatever its files ask for; nothing happens
    to a model without any.

    bitsandbytes 0.50 packs the weights of a CPU with avx512_bf16 anew at the first pass in
    evaluation mode, with coarser scales (nn/modules.py, Linear4bit.forward). Training goes on with
    them, or fails; so it does not do it here.
    """
    for module in model.modules():
        if hasattr(module, "compute_type_is_set"):
            module.compute_dtype = dtype
            module.compute_type_is_set = True
            module.support_avx512bf16_for_cpu = False


def cast_unquantized(model: Any, *, loaded: Any, dtype: Any) -> None:
    """Weights that are not quantized, and were loaded in `loaded`, are in `dtype`."""
    for parameter in model.parameters():
        if parameter.dtype == loaded and not hasattr(parameter, "quant_state"):
            parameter.data = parameter.data.to(dtype)


def _section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    section = config.get("quantization_config")
    if isinstance(section, dict):
        return section
    return {}
