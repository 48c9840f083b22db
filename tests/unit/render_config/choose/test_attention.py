"""Which attention the plan takes for packed rows, and what that does to the planned memory."""

from dataclasses import replace
from typing import Any

import pytest

from components.render_config.choose.attention import AttentionChoice, choose_attention
from components.render_config.cost.activations import activations
from components.render_config.decision import Decision
from components.shared.documents.plan import ZeroPlan
from components.shared.errors import ModelError
from tests.support.settings import A100, setting_of

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
}


def choice(
    asked: Any = "auto",
    model_type: str = "llama",
    fields: dict[str, Any] | None = None,
    *,
    packed: bool = True,
    hardware: dict[str, Any] | None = None,
    precision: str = "bf16",
) -> AttentionChoice:
    return decision(
        asked, model_type, fields, packed=packed, hardware=hardware, precision=precision
    ).value


def decision(
    asked: Any = "auto",
    model_type: str = "llama",
    fields: dict[str, Any] | None = None,
    *,
    packed: bool = True,
    hardware: dict[str, Any] | None = None,
    precision: str = "bf16",
) -> Decision[AttentionChoice]:
    """By default on an A100."""
    setting = setting_of(
        LLAMA_8B,
        packed=packed,
        hardware=A100 if hardware is None else hardware,
        training={"attention": asked, "precision": precision},
    )
    return choose_attention(setting, {"model_type": model_type, **(fields or {})})


def test_packed_rows_attend_by_conversation_where_that_is_known_to_be_right() -> None:
    assert (choice().implementation, choice().masked) == ("conversations", False)
    own = choice(model_type="codegen")
    assert (own.implementation, own.masked) == (None, True)
    assert "codegen" in decision(model_type="codegen").reason


def test_a_row_of_one_conversation_needs_no_mask() -> None:
    apart = Decision(AttentionChoice(None, False), "a row is one conversation")
    assert decision(packed=False) == apart


@pytest.mark.parametrize(
    ("fields", "masked"),
    [
        ({"sliding_window": 1024}, True),
        ({"sliding_window": 4096}, False),
        ({"sliding_window": None}, False),
        ({"sliding_window": 1024, "use_sliding_window": False}, False),
        ({"text_config": {"attention_chunk_size": 512}}, True),
    ],
)
def test_a_window_shorter_than_a_row_needs_a_mask(fields: dict[str, Any], masked: bool) -> None:
    assert choice(fields=fields).masked == masked


def test_soft_caps_and_sinks_need_all_scores() -> None:
    assert choice(model_type="gemma2").masked
    assert choice(model_type="gpt_oss").masked


@pytest.mark.parametrize(
    ("asked", "given", "found"),
    [
        (
            "conversations",
            {"model_type": "codegen"},
            "is not known to be right for a codegen model",
        ),
        ("flash_attention_2", {"hardware": {}}, "trains on GPUs alone"),
        ("flex_attention", {"hardware": {}}, "trains on GPUs alone"),
        ("flash_attention_2", {"precision": "fp32"}, "this plan's precision is fp32"),
    ],
)
def test_what_does_not_go_together_is_one_line_with_what_does(
    asked: str, given: dict[str, Any], found: str
) -> None:
    with pytest.raises(
        ModelError,
        match=(
            rf"training\.attention: found {asked}, .*{found}.*allowed are .*Fix: remove "
            r"training\.attention"
        ),
    ):
        choice(asked, **given)


def test_what_the_spec_says_is_done() -> None:
    asked = Decision(AttentionChoice("sdpa", True), "training.attention is sdpa")
    assert decision("sdpa") == asked
    assert choice("flash_attention_2").masked is False


def test_llama_3_8b_saves_a_gib_of_masks_and_repeated_keys() -> None:
    """32 blocks x 4,096² x 2 B = 1 GiB of masks and 16 MiB of truth values; of each token 2 x (32 -
    8) x 128 x 2 B a block."""
    setting = setting_of(LLAMA_8B)
    masked, plain = (
        activations(replace(setting, masked_attention=each), ZeroPlan(stage=0), 1)
        for each in (True, False)
    )
    assert masked.masks - plain.masks == 2**30 + 4096**2
    assert masked.blocks - plain.blocks == 32 * 4096 * 2 * 24 * 128 * 2
