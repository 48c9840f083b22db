"""Fields of a config.json that contradict each other are refused; fields nobody reads are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.shared.model.config_fields import contradictions, unread_fields
from components.shared.model.folder import config_problems
from components.shared.model.positions import known_positions
from components.shared.model.row_packing import untrainable
from tests.support.config_fields import document

ROOT = Path(__file__).parents[4]
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "vocab_size": 32000,
}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"num_key_value_heads": 7},
            "num_key_value_heads: got 7, must divide num_attention_heads, 32",
        ),
        (
            {"num_attention_heads": 33, "num_key_value_heads": 33},
            (
                "num_attention_heads: got 33, must divide the hidden size, 4096, where no "
                "head_dim is given"
            ),
        ),
        (
            {"tie_word_embeddings": "false"},
            "tie_word_embeddings: got 'false', must be true or false",
        ),
        (
            {"hidden_act": ["a"]},
            "hidden_act: got ['a'], which is no activation that transformers has",
        ),
        ({"attention_bias": 1}, "attention_bias: got 1, must be true or false"),
        (
            {"hidden_act": "silly"},
            "hidden_act: got 'silly', which is no activation that transformers has",
        ),
        (
            {"layer_types": ["full_attention"] * 31},
            "layer_types: got 31 names, must be 32, as num_hidden_layers says",
        ),
        (
            {"num_experts": 8, "num_local_experts": 16},
            (
                "num_local_experts: got 16, but num_experts, another name of the same size, is 8; "
                "remove the wrong one"
            ),
        ),
        (
            {"num_local_experts": 8, "num_experts_per_tok": 9},
            "num_experts_per_tok: got 9, but the model has 8 experts",
        ),
    ],
)
def test_a_field_that_another_contradicts_is_one_line(fields: dict[str, Any], line: str) -> None:
    assert config_problems(LLAMA | fields) == [line]


def test_the_text_part_of_a_wrapper_is_judged_like_the_whole() -> None:
    wrapper = {"model_type": "gemma3", "text_config": LLAMA | {"hidden_size": -1}}
    assert config_problems(wrapper) == [
        "text_config.hidden_size: got -1, must be a whole number from 1 to 16777216"
    ]
    wrapper["text_config"] = LLAMA | {"num_key_value_heads": 5}
    assert config_problems(wrapper) == [
        "text_config.num_key_value_heads: got 5, must divide num_attention_heads, 32"
    ]


def test_heads_with_a_size_of_their_own_need_not_divide_the_hidden_size() -> None:
    assert contradictions(LLAMA | {"num_attention_heads": 24, "head_dim": 128}) == []


def test_fields_that_the_type_does_not_read_are_named_and_usual_ones_are_not() -> None:
    odd = LLAMA | {"residual_multiplier": 0.22, "torch_dtype": "bfloat16", "rope_theta": 1e6}
    assert unread_fields(odd | {"temperature": 0.6, "head_dim": 128}) == ["residual_multiplier"]
    assert unread_fields({"model_type": "granite", "residual_multiplier": 0.22}) == []
    wrapper = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "mup": 1}}
    assert unread_fields(wrapper) == ["text_config.mup"]


def test_published_config_files_have_neither_contradictions_nor_unread_fields() -> None:
    files = sorted((ROOT / "specs" / "models").glob("*/config.json"))
    assert len(files) >= 14
    for file in files:
        config = json.loads(file.read_text())
        assert (file.parent.name, contradictions(config), unread_fields(config)) == (
            file.parent.name,
            [],
            [],
        )


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, 16384),
        ({"rope_type": "yarn", "factor": 4.0}, 16384),
        ({"rope_type": "dynamic", "factor": 2}, 8192),
        ({"rope_type": "linear", "factor": 8.0}, 4096),
        ({"type": "linear", "factor": 2, "original_max_position_embeddings": 4096}, 8192),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 4096),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
    ],
)
def test_rope_scaling_lengthens_what_the_model_knows(rope: dict[str, Any], positions: int) -> None:
    name = (
        "max_position_embeddings"
        if positions == 4096
        else "max_position_embeddings with rope_scaling"
    )
    assert known_positions(LLAMA | {"rope_scaling": rope}) == (name, positions)


def test_a_wrapper_has_the_positions_of_its_text_part() -> None:
    assert known_positions({"text_config": LLAMA}) == ("max_position_embeddings", 4096)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"model_type": "qwen2_5_vl", "text_config": {"model_type": "qwen2_5_vl_text"}},
            "a model of text and images, audio or video (text_config)",
        ),
        (
            {"model_type": "qwen2_vl", "hidden_size": 8, "vision_config": {"depth": 2}},
            "audio or video (vision_config)",
        ),
        ({"model_type": "plamo2"}, "needs Python code from the model's repository"),
        ({"model_type": "lama"}, "did you mean 'llama'?"),
        (
            {"model_type": "evil", "auto_map": {"AutoModel": "evil.M"}},
            "auto_map names code of its own",
        ),
        (
            {
                "model_type": "kimi_k2",
                "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"},
            },
            "its class DeepseekV3ForCausalLM is that of the type 'deepseek_v3'",
        ),
        (
            {"model_type": "llama_of_ours", "architectures": ["LlamaForCausalLM"]},
            "set model_type: llama in a copy of its config.json",
        ),
    ],
)
def test_a_model_that_is_not_trained_is_one_line_with_the_reason(
    config: dict[str, Any], words: str
) -> None:
    line = untrainable(config)
    assert line is not None
    assert words in line
    assert "Fix: name " in line
    assert len(line) < 400
    assert "\n" not in line


def test_the_table_of_fields_is_that_of_the_installed_transformers() -> None:
    assert document() == (ROOT / "components/shared/model/config_fields.json").read_text(
        encoding="utf-8"
    )
