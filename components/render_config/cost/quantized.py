"""A base model in 4 bits -> what its weights take, and what turning them back takes.

NF4 with double quantization (QLoRA, arXiv 2305.14314, section 3): 4 bits a number; of each block
of 64 a scale of 8 bits; of each 256 scales one of 32 bits. bitsandbytes turns one weight back at a
time, right before each product with it.
"""

from components.render_config.cost.terms import term
from components.render_config.setting import Setting
from components.shared.documents.plan import MemoryTerm

BLOCK, SCALES = 64, 256
NF4_BYTES = 1 / 2 + 1 / BLOCK + 4 / (BLOCK * SCALES)
"""A parameter: 0.516."""
SOURCE = "QLoRA (arXiv 2305.14314), section 3; bitsandbytes 0.50 functional.py"


def base_bytes(num_parameters: int, num_quantized: int, weight_bytes: int) -> float:
    """Of all weights."""
    return weight_bytes * (num_parameters - num_quantized) + NF4_BYTES * num_quantized


def frozen_bytes(setting: Setting) -> float:
    """Of the base's weights, undivided."""
    total, quantized = setting.architecture.num_parameters, setting.quantized.num_parameters
    return base_bytes(total, quantized, setting.weight_bytes)


def weights_formula(num_parameters: int, num_quantized: int, weight_bytes: int) -> str:
    if not num_quantized:
        return f"{weight_bytes} B x {num_parameters:,} parameters"
    return (
        f"{NF4_BYTES:.3f} B x {num_quantized:,} in 4 bits + {weight_bytes} B x "
        f"{num_parameters - num_quantized:,} others"
    )


def weights_turned_back(largest_quantized: int, weight_bytes: int) -> MemoryTerm:
    """Of the largest weight, while it is multiplied with."""
    return term(
        "weights turned back from 4 bits",
        weight_bytes * largest_quantized,
        f"{weight_bytes} B x {largest_quantized:,}, the largest weight in 4 bits",
        "bitsandbytes 0.50 autograd/_functions.py, MatMul4Bit",
    )


def loading_whole(whole_bytes: float, steady_bytes: int) -> MemoryTerm:
    """What loading takes beyond the steady sum: transformers puts a quantized model on each GPU
    whole, and ZeRO-3 divides it afterwards."""
    return term(
        "loading the whole model in 4 bits",
        max(0, whole_bytes - steady_bytes),
        f"{whole_bytes:,.0f} B, as far as it is more than all of the above",
        "transformers 5.23 modeling_utils.py: no zero.Init for a quantized model",
    )


def bytes_to_turn_back(num_quantized: int, weight_bytes: int) -> float:
    """That a pass reads and writes before its products: 4 bits are read and the whole weight is
    written. The product reads it as it reads any weight."""
    return num_quantized * (NF4_BYTES + weight_bytes)
