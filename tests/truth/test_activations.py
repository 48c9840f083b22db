"""What autograd really keeps of real models' blocks, counted by saved-tensor hooks, against the
formulas of activations.py."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from components.render_config.choose.lora import lora_plan
from components.render_config.cost.activations import Activations, activations
from components.render_config.model.architectures import architecture_of
from components.render_config.model.targets import lora_targets
from components.render_config.render.files import lora_json
from components.shared.documents.plan import ZeroPlan
from components.shared.spec.training import LoraSpec
from components.train.model.attention import ConversationAttention
from components.train.model.own_layers import OwnLayers
from tests.support.settings import setting_of

pytestmark = pytest.mark.slow
ROWS, TOKENS, RANK = 2, 64, 8
LONG = 1024
"""Tokens of a row in which masks, that grow with their square, are as large as all else that a
small block keeps."""
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_attention_heads": 8,
    "vocab_size": 1000,
    "pad_token_id": 0,
}
GROUPED = {**SHAPE, "num_key_value_heads": 4}
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
TOKEN_IDS = {"bos_token_id": 1, "eos_token_id": 2}
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "llama", **GROUPED},
    {"model_type": "qwen3", **GROUPED, "head_dim": 16},
    {"model_type": "gpt_neox", **SHAPE},
    {
        "model_type": "gpt_neox_japanese",
        **{key: value for key, value in SHAPE.items() if key != "intermediate_size"},
    },
    {
        "model_type": "gpt2",
        "n_embd": 128,
        "n_head": 8,
        "n_layer": 2,
        "vocab_size": 1000,
        "n_positions": 128,
    },
    {"model_type": "gemma2", **GROUPED, "head_dim": 16},
    {"model_type": "gemma3_text", **GROUPED, "head_dim": 16},
    {"model_type": "phi3", **GROUPED},
    {"model_type": "mixtral", **GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    {"model_type": "qwen3_moe", **GROUPED, **MOE},
    {
        "model_type": "gpt_oss",
        **GROUPED,
        "head_dim": 16,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
]


@pytest.mark.parametrize("full", [True, False], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_a_block_keeps_what_its_formula_says(
    config: dict[str, Any], dtype: torch.dtype, full: bool
) -> None:
    name = "n_layer" if "n_layer" in config else "num_hidden_layers"
    two, four = ({**config, **TOKEN_IDS, name: blocks} for blocks in (2, 4))
    kept = (saved_bytes(four, dtype, full=full) - saved_bytes(two, dtype, full=full)) / 2
    assert planned_of_a_block(two, four, dtype, full=full) == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "config", [CONFIGS[index] for index in (0, 1, 2, 5, 7)], ids=lambda config: config["model_type"]
)
def test_a_block_of_long_rows_keeps_its_mask_too(
    config: dict[str, Any], dtype: torch.dtype
) -> None:
    two, four = ({**config, **TOKEN_IDS, "num_hidden_layers": blocks} for blocks in (2, 4))
    kept = (
        saved_bytes(four, dtype, full=True, tokens=LONG)
        - saved_bytes(two, dtype, full=True, tokens=LONG)
    ) / 2
    assert planned_of_a_block(two, four, dtype, full=True, tokens=LONG) == pytest.approx(
        kept, rel=0.1
    )


@pytest.mark.parametrize("full", [True, False], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "config", [CONFIGS[index] for index in (0, 1, 2, 7)], ids=lambda config: config["model_type"]
)
def test_a_block_whose_conversations_attend_by_themselves_keeps_no_mask(
    config: dict[str, Any], dtype: torch.dtype, full: bool
) -> None:
    two, four = ({**config, **TOKEN_IDS, "num_hidden_layers": blocks} for blocks in (2, 4))
    how: dict[str, Any] = {"full": full, "tokens": LONG, "by_itself": True}
    kept = (saved_bytes(four, dtype, **how) - saved_bytes(two, dtype, **how)) / 2
    assert planned_of_a_block(two, four, dtype, **how) == pytest.approx(kept, rel=0.1)


def planned_of_a_block(
    two: dict[str, Any],
    four: dict[str, Any],
    dtype: torch.dtype,
    *,
    full: bool,
    tokens: int = TOKENS,
    by_itself: bool = False,
) -> float:
    def kept(config: dict[str, Any]) -> Activations:
        setting = setting_of(
            config,
            row_tokens=tokens,
            training={
                "method": "full" if full else "lora",
                "precision": "bf16" if dtype == torch.bfloat16 else "fp32",
            },
            lora={"rank": RANK},
        )
        masked = replace(setting, masked_attention=not by_itself)
        return activations(masked, ZeroPlan(stage=0), ROWS)

    of_two, of_four = kept(two), kept(four)
    return (
        of_four.blocks
        + of_four.expert_weights
        + of_four.masks
        - of_two.blocks
        - of_two.expert_weights
        - of_two.masks
    ) / 2


def saved_bytes(
    config: dict[str, Any],
    dtype: torch.dtype,
    *,
    full: bool,
    tokens: int = TOKENS,
    by_itself: bool = False,
) -> int:
    """Bytes of the storages that one forward pass over two packed rows keeps, the model's own
    weights left out."""
    fields = {key: value for key, value in config.items() if key != "model_type"}
    model: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(config["model_type"], **fields), dtype=dtype
    )
    if not full:
        model = get_peft_model(
            model,
            LoraConfig(
                **lora_json(
                    lora_plan(
                        LoraSpec(rank=RANK, alpha=8.0),
                        lora_targets("auto", architecture_of(config)),
                    )
                )
            ),
            autocast_adapter_dtype=False,
        )
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found: dict[
        int, tuple[int, torch.Tensor]
    ] = {}  # the tensors stay referenced, or a storage's address would be used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids_BT = torch.randint(0, config["vocab_size"], (ROWS, tokens))
    positions_BT = torch.arange(tokens).remainder(tokens // 2).repeat(ROWS, 1)
    own = OwnLayers(attention=ConversationAttention(model) if by_itself else None)
    with (
        own.rows_of({"position_ids": positions_BT}),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        model.train()(input_ids=ids_BT, labels=ids_BT, position_ids=positions_BT, use_cache=False)
    return sum(size for size, _ in found.values())
