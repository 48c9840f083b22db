"""Models in folders -> their logits for the probe's tokens, by plain transformers and peft alone.

Holds one model at a time: 4 bytes a parameter in the fp32 pass. Shapes: T probe tokens, V tokens of the vocabulary.
"""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from components.export_adapter.comparison import Precision, verify_logits
from components.shared.model_folder import OWN_CODE_ONLY
from components.shared.results import Verification

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}


def verify_folder(folder: Path, *, base: Path, probe: Path, precision: Precision) -> Verification:
    """The export's logits in `precision` and in fp32 and the base's, judged against the probe."""
    kept = load_file(probe)
    tokens_T = kept["tokens"]
    exported = exported_logits(folder, base, tokens_T, DTYPES[precision])
    exported_fp32 = exported if precision == "fp32" else exported_logits(folder, base, tokens_T, torch.float32)
    return verify_logits(
        kept["logits"],
        exported_TV=exported,
        exported_fp32_TV=exported_fp32,
        base_TV=logits_of(AutoModelForCausalLM.from_pretrained(base, dtype=DTYPES[precision], **OWN_CODE_ONLY), tokens_T),
        precision=precision,
    )


def exported_logits(folder: Path, base: Path, tokens_T: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Logits [T, V] of a whole model, or of the base with the adapter in `folder` on it; the adapter's matrices stay fp32."""
    if not (folder / "adapter_config.json").is_file():
        return logits_of(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **OWN_CODE_ONLY), tokens_T)
    return logits_of(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype, **OWN_CODE_ONLY), folder), tokens_T)


def logits_of(model: torch.nn.Module, tokens_T: torch.Tensor) -> torch.Tensor:
    """Logits [T, V], fp32 on the CPU; computed on the first GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.inference_mode():
        logits_1TV = model.to(device).eval()(input_ids=tokens_T[None].to(device), use_cache=False).logits
    return logits_1TV[0].float().cpu()
