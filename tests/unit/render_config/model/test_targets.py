from typing import Any

import pytest

from components.render_config.model.architectures import architecture_of
from components.render_config.model.shapes import Architecture
from components.render_config.model.targets import lora_targets, num_lora_parameters
from components.shared.errors import ModelError

SHAPE = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000}
LLAMA_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_key_value_heads": 4}


def architecture(model_type: str, **fields: Any) -> Architecture:
    return architecture_of({"model_type": model_type, **SHAPE, **fields})


GPT2 = architecture_of({"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 500})


def test_elyza_and_open_calm_get_the_targets_of_their_architectures() -> None:
    assert lora_targets("auto", architecture("llama")).modules == LLAMA_NAMES
    assert lora_targets("auto", architecture("gpt_neox")).modules == ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


def test_seven_billion_parameters_at_rank_16_train_forty_million() -> None:
    assert num_lora_parameters(lora_targets("auto", architecture("llama")), 16) == 39_976_960


def test_words_take_a_part_of_the_blocks() -> None:
    assert lora_targets("attention", architecture("llama")).modules == LLAMA_NAMES[:4]
    assert lora_targets("mlp", architecture("llama")).modules == LLAMA_NAMES[4:]
    assert lora_targets(("attention", "down_proj"), architecture("llama")).modules == (*LLAMA_NAMES[:4], "down_proj")


def test_gpt2_is_told_apart_by_paths_where_two_layers_have_one_name() -> None:
    everything = lora_targets("all", GPT2)
    assert everything.modules == ("c_attn", "c_proj", "c_fc")
    assert everything.fan_in_fan_out
    assert lora_targets("attention", GPT2).modules == ("c_attn", "attn.c_proj")


def test_experts_are_parameters_and_the_router_is_never_a_target() -> None:
    targets = lora_targets("auto", architecture("qwen3_moe", **MOE))
    assert targets.modules == LLAMA_NAMES[:4]
    assert targets.parameters == ("experts.gate_up_proj", "experts.down_proj")
    per_expert = (4096 + 64) + (4096 + 32)
    assert num_lora_parameters(lora_targets("mlp", architecture("qwen3_moe", **MOE)), 4) == 32 * 8 * 4 * per_expert


def test_a_target_that_is_not_there_is_told_with_near_misses_and_those_that_are() -> None:
    with pytest.raises(ModelError) as caught:
        lora_targets(("q_prj", "query_key_value"), architecture("llama"))
    rest = f"it has: {', '.join(LLAMA_NAMES)}; or write auto, all, attention, mlp"
    assert caught.value.problems == (
        f"lora.targets: 'q_prj' is no layer of this llama model's blocks; did you mean 'q_proj' or 'v_proj'? {rest}",
        f"lora.targets: 'query_key_value' is no layer of this llama model's blocks; {rest}",
    )


def test_the_output_head_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"'lm_head' is a layer that LoRA leaves alone: the output head"):
        lora_targets(("lm_head",), architecture("llama"))
