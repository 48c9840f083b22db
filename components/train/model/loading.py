"""The base model, divided among processes as it loads under ZeRO-3, with LoRA matrices beside its
layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, set_seed

from components.shared.documents.plan import Plan
from components.shared.documents.prompts import NewToken
from components.shared.model.folder import OWN_CODE_ONLY
from components.shared.model.quantization import compute_in, loading_arguments
from components.shared.model.source import read_config
from components.train.model.attention import NAME as CONVERSATIONS
from components.train.model.vocabulary import grow, train_vocabulary

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(
    folder: Path,
    plan: Plan,
    *,
    lora: dict[str, Any] | None,
    seed: int,
    new_tokens: Sequence[NewToken] = (),
) -> Any:
    """The model to train. TrainingArguments with the DeepSpeed config must exist, or ZeRO-3 would
    load it whole everywhere.

    Under ZeRO-3, parameters take the DeepSpeed config's number format whatever the file's is.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=DTYPES[plan.precision],
        attn_implementation=None if plan.attention == CONVERSATIONS else plan.attention,
        **loading_arguments(plan.model.quantization, plan.precision, read_config(folder)),
        **OWN_CODE_ONLY,
    )
    compute_in(model, DTYPES[plan.precision])
    if plan.model.quantization != "none":
        leave_the_files(model)
    turn_cache_off(model.config)
    # transformers loads a quantized model whole in each process; DeepSpeed divides it afterwards.
    is_divided = plan.zero.stage == 3 and plan.model.quantization == "none"
    assert not is_divided or hasattr(next(model.parameters()), "ds_id"), (
        "ZeRO-3 is not active: the model was loaded whole"
    )
    leave_out_router_loss(model)
    grow(model, new_tokens)
    # LoRA's A matrices are drawn here, before Trainer seeds anything.
    set_seed(seed)
    if lora is None:
        trained = model
    else:
        trained = get_peft_model(model, LoraConfig(**lora))
        assert plan.lora is not None
        train_vocabulary(trained, plan.lora, new_tokens)
    num_trainable = sum(_num_elements(p) for p in trained.parameters() if p.requires_grad)
    assert num_trainable == plan.num_trainable, (
        f"the plan says {plan.num_trainable} trainable parameters, the model has {num_trainable}"
    )
    return trained


def leave_the_files(model: PreTrainedModel) -> None:
    """What is not quantized is copied out of the mapped files. Where the weights were quantized
    while they loaded, nothing refers to the files then, and their pages leave the memory."""
    for tensor in (*model.parameters(), *model.buffers()):
        if not hasattr(tensor, "quant_state"):
            tensor.data = tensor.data.clone()


def leave_out_router_loss(model: PreTrainedModel) -> None:
    """The router's auxiliary loss of a mixture of experts is no part of the loss, whatever
    config.json says (`output_router_logits`).

    transformers (5.23) adds it whole to every forward pass, so it would count once for each
    micro-batch and process.
    """
    for config in (model.config, model.config.get_text_config(decoder=True)):
        if hasattr(config, "output_router_logits"):
            config.output_router_logits = False


def turn_cache_off(config: Any) -> None:
    """No part of the model keeps keys and values of a forward pass: Trainer says so to the whole
    config alone, and a part that keeps them lets conversations of a row see each other (Fuyu)."""
    config.use_cache = False
    for part in vars(config).values():
        if isinstance(part, PreTrainedConfig):
            turn_cache_off(part)


def _num_elements(parameter: torch.nn.Parameter) -> int:
    """Elements of the whole parameter; ZeRO-3 leaves an empty tensor and its true size in
    `ds_numel`."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
