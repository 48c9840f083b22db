"""Base in 4 bits + adapter -> a whole model in 16 or 32 bits, that answers as the two together.

The adapter was trained on what 4 bits left of the base's weights, so it is added to just these:
added to the original weights, logits move by what quantization changed. Needs memory for the whole
model in fp32.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from components.export_adapter.verification.logits import TRAINED, load_base
from components.shared.documents.plan import Precision
from components.shared.documents.prompts import NewToken


def merge_quantized(
    base: Path,
    adapter: Path,
    quantized_from: Precision,
    local: Path,
    *,
    new_tokens: Sequence[NewToken] = (),
) -> torch.dtype:
    """`local` holds the merged weights, computed in fp32, and their config. Returns their number
    format, that of training."""
    dtype = TRAINED[quantized_from]
    quantized = load_base(base, torch.float32, quantized_from=quantized_from, new_tokens=new_tokens)
    whole = quantized.dequantize(dtype=torch.float32)
    merged: Any = PeftModel.from_pretrained(whole, adapter).merge_and_unload()
    merged.to(dtype).save_pretrained(local, max_shard_size="5GB")
    return dtype
