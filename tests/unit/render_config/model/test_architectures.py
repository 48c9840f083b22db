"""The arithmetic of families.py, compared with transformers' own models built without weights and
walked."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from components.render_config.model.architectures import architecture_of, why_model_not_built
from components.render_config.model.families import FAMILIES, SPELLINGS
from components.render_config.model.shapes import from_json
from components.shared.errors import ModelError

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 500,
}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 500}
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "llama", **SMALL, "num_key_value_heads": 2, "tie_word_embeddings": False},
    {
        "model_type": "llama",
        **SMALL,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
    {"model_type": "llama", **SMALL, "num_key_value_heads": 1, "head_dim": 32},
    {"model_type": "mistral", **SMALL, "num_key_value_heads": 2, "head_dim": 16},
    {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2},
    {
        "model_type": "qwen3",
        **SMALL,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "attention_bias": True,
    },
    {"model_type": "gemma", **SMALL, "num_key_value_heads": 1},
    {"model_type": "gemma2", **SMALL, "num_key_value_heads": 2, "head_dim": 24},
    {"model_type": "gemma3_text", **SMALL, "num_key_value_heads": 2, "attention_bias": True},
    {"model_type": "phi3", **SMALL, "num_key_value_heads": 2, "pad_token_id": 0},
    {"model_type": "gpt_neox", **SMALL},
    {"model_type": "gpt_neox", **SMALL, "attention_bias": False, "tie_word_embeddings": True},
    {
        "model_type": "gpt_neox_japanese",
        **{key: value for key, value in SMALL.items() if key != "intermediate_size"},
    },
    {**GPT2},
    {**GPT2, "n_inner": 100, "n_positions": 256},
    {
        "model_type": "mixtral",
        **SMALL,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    {"model_type": "qwen3_moe", **SMALL, **MOE, "num_key_value_heads": 2, "head_dim": 24},
    {"model_type": "qwen3_moe", **SMALL, **MOE, "num_key_value_heads": 2, "mlp_only_layers": [1]},
    {
        "model_type": "qwen3_moe",
        **SMALL,
        **MOE,
        "num_key_value_heads": 2,
        "decoder_sparse_step": 2,
        "tie_word_embeddings": True,
    },
    {
        "model_type": "gpt_oss",
        **SMALL,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
]


# A config.json may lack what its class has a default for.
CONFIGS += [
    {
        key: value
        for key, value in config.items()
        if key not in ("num_key_value_heads", "head_dim", "tie_word_embeddings")
    }
    for config in CONFIGS
    if "num_key_value_heads" in config and "mlp_only_layers" not in config
]


def walked(config: dict[str, Any]) -> dict[str, Any]:
    from components.train.model.walk import build, walk

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return comparable(from_json(walk(build(config))))


def comparable(architecture: Any) -> dict[str, Any]:
    fields = {
        field.name: getattr(architecture, field.name) for field in dataclasses.fields(architecture)
    }
    return fields | {"linears": set(architecture.linears), "experts": set(architecture.experts)}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_counting_and_walking_the_real_model_give_the_same_shapes(config: dict[str, Any]) -> None:
    assert comparable(architecture_of(config)) == walked(config)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_a_config_saved_by_transformers_counts_as_the_built_model(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """As transformers 5 writes it, and with every field that it has renamed under its other
    name."""
    from components.train.model.walk import build

    fields = {name: value for name, value in config.items() if name != "model_type"}
    AutoConfig.for_model(config["model_type"], **fields).save_pretrained(tmp_path)
    saved: dict[str, Any] = json.loads((tmp_path / "config.json").read_bytes())
    built = sum(weight.numel() for weight in build(config).parameters())
    assert architecture_of(saved).num_parameters == built
    others: dict[str, str] = {
        name: str(other) for other, name in SPELLINGS.get(config["model_type"], {}).items()
    }
    respelled = {others.get(name, name): value for name, value in saved.items()}
    assert architecture_of(respelled).num_parameters == built


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_other_spellings_of_a_family_are_those_of_transformers(model_type: str) -> None:
    assert SPELLINGS.get(model_type, {}) == type(AutoConfig.for_model(model_type)).attribute_map


def test_every_counted_family_is_held_against_its_model() -> None:
    assert {config["model_type"] for config in CONFIGS} == set(FAMILIES)


def test_seven_billion_parameters_are_counted_in_elyza() -> None:
    elyza = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    }
    assert architecture_of({**elyza, "vocab_size": 32000}).num_parameters == 6_738_415_616


def test_a_missing_field_and_a_missing_type_are_reported() -> None:
    with pytest.raises(ModelError, match="has no field 'hidden_size'"):
        architecture_of({"model_type": "llama"})
    with pytest.raises(
        ModelError,
        match=(
            r"cannot be counted \(intermediate_size: found a list, must be a number for this "
            r"type\)"
        ),
    ):
        architecture_of({"model_type": "llama", **SMALL, "intermediate_size": [160]})
    with pytest.raises(
        ModelError, match="has model_type None, must be the name of an architecture"
    ):
        architecture_of({})


@pytest.mark.parametrize(
    ("last_line", "config", "why"),
    [
        (
            "ImportError: Gemma3nX requires timm. `pip install timm`. Please note that",
            {},
            "it needs the library timm, which is not installed here",
        ),
        (
            "TypeError: empty() takes 1 positional argument but 3 were given",
            {"n_routed_experts": None, "hidden_size": 8, "pad_token_id": None},
            "config.json has null in n_routed_experts; TypeError: empty() takes 1 positional "
            "argument but 3 were given",
        ),
        ("KeyError: 'x'", {"n_routed_experts": None}, "KeyError: 'x'"),
    ],
)
def test_a_type_that_cannot_be_built_says_which_library_or_size_is_missing(
    last_line: str, config: dict[str, Any], why: str
) -> None:
    assert why_model_not_built(last_line, config) == why
