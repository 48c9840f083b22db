"""Models in folders -> what they answer to the data's prompts, by plain transformers and peft
alone.

Holds one model at a time: 4 bytes a parameter in the fp32 pass. Shapes: K positions, V tokens of
the vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig

from components.export_adapter.verification.comparison import (
    Precision,
    stop_problems,
    verify_logits,
)
from components.export_adapter.verification.probe import probe_problems, turn_ends
from components.export_adapter.verification.text_checks import text_problems
from components.shared.documents.plan import Precision as Trained
from components.shared.documents.prompts import PROBE_POSITIONS, NewToken, Prompts
from components.shared.documents.results import Verification
from components.shared.model.folder import OWN_CODE_ONLY
from components.shared.model.new_tokens import grow_model
from components.shared.model.quantized_loading import load_in_4_bits

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
TRAINED: dict[Trained, torch.dtype] = {**DTYPES, "fp16": torch.float16}
GENERATED = 4
"""Most tokens that are generated where a turn should end at once."""


@dataclass(frozen=True)
class Answers:
    """What an export gives for the prompts."""

    logits: torch.Tensor
    """[K, V]"""
    generated: tuple[tuple[int, ...], ...]
    """Of each turn end, the tokens generated from the tokens before it."""


def verify_folder(
    folder: Path,
    *,
    base: Path,
    probe: Path,
    prompts: Prompts,
    precision: Precision,
    quantized_from: Trained | None = None,
) -> Verification:
    """The export's tokenizer, and its logits in `precision` and in fp32 and the base's, compared
    with the probe.

    `quantized_from`: the base is held in 4 bits, made from weights in this number format.

    Raises:
        ValueError: the probe does not belong to the prompts.
    """
    kept = load_file(probe)
    unfit = probe_problems(kept, prompts)
    if unfit:
        raise ValueError(f"{probe.name}: {unfit[0]}")
    problems = text_problems(folder, prompts)
    on_base = partial(load_base, base, quantized_from=quantized_from, new_tokens=prompts.new_tokens)
    exported = answers_of(load_export(folder, on_base, DTYPES[precision]), prompts, folder)
    exported_fp32_KV = exported.logits
    if precision != "fp32":
        exported_fp32_KV = prompt_logits(load_export(folder, on_base, torch.float32), prompts)
    found = verify_logits(
        kept["logits"],
        exported_TV=exported.logits,
        exported_fp32_TV=exported_fp32_KV,
        base_TV=prompt_logits(on_base(DTYPES[precision]), prompts),
        precision=precision,
    )
    ends = list(turn_ends(prompts))
    stops, not_stopped = stop_problems(
        kept["logits"], ends, exported.generated, limit=found.tolerance_max * found.logits_std
    )
    return with_prompts(
        found,
        [*problems, *not_stopped],
        num_prompts=len(prompts.prompts),
        ends=len(ends),
        stops=stops,
    )


def with_prompts(
    found: Verification, problems: list[str], *, num_prompts: int, ends: int, stops: int
) -> Verification:
    """The verdict on logits and that on text and turn ends, as one."""
    everything = (*problems, *found.problems)
    update = {"passed": not everything, "problems": everything, "num_prompts": num_prompts}
    return found.model_copy(update={**update, "num_ends": ends, "num_stops": stops})


def load_model(folder: Path, dtype: torch.dtype) -> Any:
    """On the first GPU where there is one."""
    if torch.cuda.is_available():
        device = "cuda"
    else:
        device = "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **OWN_CODE_ONLY)
    return model.to(device).eval()


def load_base(
    folder: Path,
    dtype: torch.dtype,
    *,
    quantized_from: Trained | None,
    new_tokens: Sequence[NewToken] = (),
) -> Any:
    """As `load_model`, with rows for the new tokens; in 4 bits, the same numbers in each
    `dtype`."""
    if quantized_from is None:
        model = load_model(folder, dtype)
    else:
        model = load_in_4_bits(
            AutoModelForCausalLM.from_pretrained,
            folder,
            quantized_from,
            loaded=TRAINED[quantized_from],
            dtype=dtype,
        )
    grow_model(model, new_tokens)
    return model


def load_export(folder: Path, base: Callable[[torch.dtype], Any], dtype: torch.dtype) -> Any:
    """A whole model, or the base with the adapter in `folder` on it; the adapter's matrices stay
    fp32."""
    if not (folder / "adapter_config.json").is_file():
        return load_model(folder, dtype)
    return PeftModel.from_pretrained(base(dtype), folder).eval()


def answers_of(model: Any, prompts: Prompts, folder: Path) -> Answers:
    """Logits, and what the model generates under the folder's own generation config where a turn
    should end."""
    generation = greedy(GenerationConfig.from_pretrained(folder))
    generated = tuple(
        generate(model, prompts.prompts[end.prompt].probe_ids[:-1], generation)
        for end in turn_ends(prompts)
    )
    return Answers(prompt_logits(model, prompts), generated)


@torch.inference_mode()
def prompt_logits(model: Any, prompts: Prompts) -> torch.Tensor:
    """Logits [K, V], fp32 on the CPU, at the last PROBE_POSITIONS of each prompt."""
    rows: list[torch.Tensor] = []
    for prompt in prompts.prompts:
        tokens_1T = torch.tensor([prompt.probe_ids], device=model.device)
        logits_1TV = model(input_ids=tokens_1T, use_cache=False).logits
        rows.append(logits_1TV[0, -PROBE_POSITIONS:].float().cpu())
    return torch.cat(rows)


def greedy(generation: GenerationConfig) -> GenerationConfig:
    """The same end tokens, without sampling."""
    ends = generation.eos_token_id
    padding = generation.pad_token_id
    if padding is None:
        if isinstance(ends, list):
            padding = ends[0]
        else:
            padding = ends
    return GenerationConfig(
        do_sample=False, max_new_tokens=GENERATED, eos_token_id=ends, pad_token_id=padding
    )


def generate(
    model: Any, token_ids: tuple[int, ...], generation: GenerationConfig
) -> tuple[int, ...]:
    """The tokens that follow."""
    tokens_1T = torch.tensor([token_ids], device=model.device)
    made_1T = model.generate(
        input_ids=tokens_1T, attention_mask=torch.ones_like(tokens_1T), generation_config=generation
    )
    return tuple(made_1T[0, len(token_ids) :].tolist())
