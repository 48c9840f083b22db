"""Which attention the plan takes for packed rows, and what that does to the planned memory."""

from typing import Any

import pytest

from components.render_config.choose.attention import AttentionChoice, choose_attention
from components.render_config.cost.activations import Pass, activations
from components.render_config.model.architectures import architecture_of
from components.shared.errors import ModelError

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128_256,
}  # fmt: skip


def choice(asked: Any = "auto", model_type: str = "llama", fields: dict[str, Any] | None = None, **given: Any) -> AttentionChoice:
    usual: dict[str, Any] = {"packed": True, "on_gpu": True, "row_tokens": 4096, "precision": "bf16"}
    return choose_attention(asked, {"model_type": model_type, **(fields or {})}, **(usual | given))


def test_packed_rows_attend_by_conversation_where_that_is_known_to_be_right() -> None:
    assert (choice().implementation, choice().masked) == ("conversations", False)
    own = choice(model_type="codegen")
    assert (own.implementation, own.masked) == (None, True)
    assert "codegen" in own.reason


def test_a_row_of_one_conversation_needs_no_mask() -> None:
    assert choice(packed=False) == AttentionChoice(None, False, "a row is one conversation")


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
        ("conversations", {"model_type": "codegen"}, "is not known to be right for a codegen model"),
        ("flash_attention_2", {"on_gpu": False}, "trains on GPUs alone"),
        ("flex_attention", {"on_gpu": False}, "trains on GPUs alone"),
        ("flash_attention_2", {"precision": "fp32"}, "this plan's precision is fp32"),
    ],
)
def test_what_does_not_go_together_is_one_line_with_what_does(asked: str, given: dict[str, Any], found: str) -> None:
    with pytest.raises(ModelError, match=rf"training\.attention: found {asked}, .*{found}.*allowed are .*Fix: remove training\.attention"):
        choice(asked, **given)


def test_what_the_spec_says_is_done() -> None:
    assert choice("sdpa") == AttentionChoice("sdpa", True, "training.attention is sdpa")
    assert choice("flash_attention_2").masked is False


def work(*, masked: bool) -> Pass:
    return Pass(
        micro_batch=1,
        row_tokens=4096,
        weight_bytes=2,
        full=False,
        adapted=(),
        experts_adapted=False,
        rank=16,
        checkpointing=False,
        fp32_adapters=False,
        masked_attention=masked,
    )


def test_llama_3_8b_saves_a_gib_of_masks_and_repeated_keys() -> None:
    """32 blocks x 4,096² x 2 B = 1 GiB of masks and 16 MiB of truth values; of each token 2 x (32 - 8) x 128 x 2 B a block."""
    architecture = architecture_of(LLAMA_8B)
    masked, plain = (activations(architecture, work(masked=each)) for each in (True, False))
    assert masked.masks - plain.masks == 2**30 + 4096**2
    assert masked.blocks - plain.blocks == 32 * 4096 * 2 * 24 * 128 * 2
