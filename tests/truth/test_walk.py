"""Architectures that no formula covers, walked by a program of its own as render_config does it. Seconds each, for torch's sake."""

import pytest

from components.render_config.model.architectures import architecture_of
from components.shared.errors import ModelError

pytestmark = pytest.mark.slow


def test_a_type_without_a_formula_is_walked_by_a_program_of_its_own() -> None:
    opt = {"model_type": "opt", "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 500}
    architecture = architecture_of({**opt, "word_embed_proj_dim": 64})
    assert {(each.path, each.role, each.count) for each in architecture.linears} >= {
        ("self_attn.q_proj", "attention", 3),
        ("fc1", "mlp", 3),
    }
    assert architecture.num_blocks == 3


def test_an_architecture_that_transformers_does_not_know_is_told() -> None:
    with pytest.raises(ModelError, match=r"model_type 'plamo9', which transformers cannot build .* without building are planned: gemma, "):
        architecture_of({"model_type": "plamo9"})
