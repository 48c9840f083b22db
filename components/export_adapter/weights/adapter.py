"""A LoRA checkpoint -> adapter/ in PEFT's format; refused unless every matrix is there, whole,
finite and trained."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from components.export_adapter.base import adapters_base
from components.export_adapter.weights.grown import grown
from components.shared.documents.plan import LoraPlan, Plan
from components.shared.documents.prompts import NewToken
from components.shared.errors import RunFailed
from components.shared.model.vocabulary import peft_fields
from components.shared.store.checkpoints import Checkpoint, fetch_checkpoint
from components.shared.store.storage import Store

_DECIDES_LOGITS = (
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "target_modules",
    "target_parameters",
    "fan_in_fan_out",
    "modules_to_save",
    "trainable_token_indices",
)
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Shape = tuple[int, ...]


def write_adapter(
    store: Store,
    checkpoint: Checkpoint,
    plan: Plan,
    *,
    base: Path,
    scratch: Path,
    local: Path,
    new_tokens: Sequence[NewToken] = (),
) -> None:
    """`local` holds the checkpoint's matrices as they are, and their config, which names the base.

    Raises:
        RunFailed: the checkpoint holds no adapter, or not the one that the plan says; all problems
            at once.
    """
    assert plan.lora is not None
    fetch_checkpoint(store, checkpoint, scratch, wanted=(WEIGHTS, CONFIG).__contains__)
    absent = [name for name in (WEIGHTS, CONFIG) if not (scratch / name).is_file()]
    if absent:
        raise RunFailed(
            *(
                f"{checkpoint.folder}: holds no {name}; it is no checkpoint of a LoRA run"
                for name in absent
            )
        )
    config = json.loads((scratch / CONFIG).read_bytes())
    expected = expected_adapter(base, plan.lora, new_tokens)
    problems = [
        f"{WEIGHTS}: {each}"
        for each in adapter_problems(load_file(scratch / WEIGHTS), expected.shapes)
    ]
    problems += [f"{CONFIG}: {each}" for each in config_problems(config, expected.config)]
    if problems:
        raise RunFailed(*(f"{checkpoint.folder}/{problem}" for problem in problems))
    (scratch / WEIGHTS).rename(local / WEIGHTS)
    config |= {
        "base_model_name_or_path": adapters_base(plan.model, base),
        "revision": plan.model.revision,
        "inference_mode": True,
    }
    (local / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@dataclass(frozen=True)
class ExpectedAdapter:
    shapes: dict[str, Shape]
    """Of every tensor that PEFT would write, by name."""
    config: dict[str, Any]
    """Arguments of PEFT's LoraConfig."""


def expected_adapter(
    base: Path, lora: LoraPlan, new_tokens: Sequence[NewToken] = ()
) -> ExpectedAdapter:
    """Of this base and the plan's whole LoRA: experts and exclusions, embeddings and head
    included.

    No weight is read.
    """
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            grown(AutoConfig.from_pretrained(base, trust_remote_code=False), new_tokens),
            trust_remote_code=False,
        )
        config = lora.peft_config | peft_fields(model, lora, new_tokens)
        wrapped = get_peft_model(model, LoraConfig(**config))
    tensors = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return ExpectedAdapter({name: tuple(each.shape) for name, each in tensors.items()}, config)


def config_problems(config: Mapping[str, Any], planned: Mapping[str, Any]) -> list[str]:
    """One line for each setting of the adapter that is not the plan's: rank, scale, layers."""
    return [
        (
            f"{name}: found {_comparable(config.get(name))}, the plan has "
            f"{_comparable(planned.get(name))}"
        )
        for name in _DECIDES_LOGITS
        if _comparable(config.get(name)) != _comparable(planned.get(name))
    ]


def _comparable(value: Any) -> Any:
    """Names of layers in any order; PEFT writes none as null or as an empty list."""
    return (sorted(value) if isinstance(value, list | tuple | set) else value) or None


def adapter_problems(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Shape]
) -> list[str]:
    """One line for each kind of damage, with the first tensor that has it. Empty for a sound
    adapter.

    ZeRO-3 gives empty tensors for what was not gathered before saving (DeepSpeed #7900, peft
    #2892); all-zero B matrices are an adapter without effect.
    """
    absent = [name for name in expected if name not in tensors]
    foreign = [name for name in tensors if name not in expected]
    common = {name: tensor for name, tensor in tensors.items() if name in expected}
    empty = [name for name, tensor in common.items() if tensor.numel() == 0]
    misshapen = [
        name
        for name, tensor in common.items()
        if tensor.numel() and tuple(tensor.shape) != expected[name]
    ]
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    up = [tensor for name, tensor in tensors.items() if ".lora_B." in name]
    problems = [
        _reported(absent, "absent, though the plan trains their layers"),
        _reported(foreign, "of layers that the plan does not train"),
        _reported(empty, "empty: they were saved without being gathered from the processes"),
        _reported(
            misshapen, "of another shape than the plan's rank and the base model's layers give"
        ),
        _reported(broken, "not finite"),
    ]
    if up and not any(tensor.any() for tensor in up):
        problems.append(
            f"all {len(up)} B matrices are zero: the adapter would change nothing; was it saved "
            "before training?"
        )
    return [problem for problem in problems if problem]


def _reported(names: list[str], what: str) -> str:
    if names:
        return f"{len(names)} matrices are {what}: {names[0]}{', …' if len(names) > 1 else ''}"
    return ""
