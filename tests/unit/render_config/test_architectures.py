"""The arithmetic of architectures.py, held against transformers' own models built without weights."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from components.render_config.architectures import architecture_of, lora_targets, num_lora_parameters
from components.shared.errors import ModelError

SMALL = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 500}
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "llama", **SMALL, "num_key_value_heads": 2, "tie_word_embeddings": False},
    {"model_type": "llama", **SMALL, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    {"model_type": "llama", **SMALL, "num_key_value_heads": 1, "head_dim": 32},
    {"model_type": "mistral", **SMALL, "num_key_value_heads": 2, "head_dim": 16},
    {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2},
    {"model_type": "qwen3", **SMALL, "num_key_value_heads": 2, "head_dim": 32, "attention_bias": True},
    {"model_type": "gpt_neox", **SMALL},
    {"model_type": "gpt_neox", **SMALL, "attention_bias": False, "tie_word_embeddings": True},
]
ELYZA_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 32000,
}  # fmt: skip
OPEN_CALM_7B = {
    "model_type": "gpt_neox", "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 52224,
}  # fmt: skip


def real_model(config: dict[str, Any]) -> torch.nn.Module:
    fields = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **fields))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_parameters_are_counted_as_transformers_builds_them(config: dict[str, Any]) -> None:
    model = real_model(config)
    architecture = architecture_of(config)
    assert architecture.num_parameters == sum(p.numel() for p in model.parameters())
    assert architecture.largest_layer_parameters == max(p.numel() for p in model.parameters())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_linear_layers_are_those_of_the_blocks_and_never_the_head(config: dict[str, Any]) -> None:
    blocks = [(name, m) for name, m in real_model(config).named_modules() if isinstance(m, torch.nn.Linear) and ".layers.0." in name]
    shapes = {name.rsplit(".", 1)[-1]: (layer.in_features, layer.out_features) for name, layer in blocks}
    architecture = architecture_of(config)
    assert {linear.name: (linear.num_inputs, linear.num_outputs) for linear in architecture.linears} == shapes


def test_elyza_and_open_calm_get_the_targets_of_their_architectures() -> None:
    assert lora_targets("auto", architecture_of(ELYZA_7B)) == (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    assert lora_targets("auto", architecture_of(OPEN_CALM_7B)) == ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


def test_seven_billion_parameters_at_rank_16_train_forty_million() -> None:
    elyza = architecture_of(ELYZA_7B)
    assert elyza.num_parameters == 6_738_415_616
    assert num_lora_parameters(lora_targets("auto", elyza), 16, elyza) == 39_976_960


def test_a_target_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(ModelError) as caught:
        lora_targets(("q_prj", "query_key_value"), architecture_of(ELYZA_7B))
    assert caught.value.problems == (
        "lora.targets: 'q_prj' is no linear layer of this llama model; did you mean 'q_proj'? "
        "it has: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
        "lora.targets: 'query_key_value' is no linear layer of this llama model; "
        "it has: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
    )


def test_an_unknown_architecture_and_a_missing_field_are_told() -> None:
    with pytest.raises(ModelError, match="model_type 'gpt2', planned are: gpt_neox, llama, mistral, qwen2, qwen3"):
        architecture_of({"model_type": "gpt2"})
    with pytest.raises(ModelError, match="has no field 'hidden_size'"):
        architecture_of({"model_type": "llama"})
