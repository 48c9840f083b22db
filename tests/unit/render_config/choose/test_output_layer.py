"""Where the plan has the output layer work at trained tokens alone, and what that does to the
planned memory."""

from dataclasses import replace
from typing import Any

import pytest

from components.render_config.choose.output_layer import choose_output_layer
from components.render_config.cost.loss import at_the_loss
from components.render_config.decision import Decision
from components.render_config.setting import Setting
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
    *,
    row_tokens: int = 4096,
    hardware: dict[str, Any] = A100,
    **training: Any,
) -> Decision[int | None]:
    """In bf16, by default of LoRA on an A100."""
    setting = setting_of(
        LLAMA_8B,
        row_tokens=row_tokens,
        hardware=hardware,
        training={"output_layer": asked, "precision": "bf16", **training},
    )
    return choose_output_layer(setting, {"model_type": model_type})


def setting(chunk_tokens: int | None, *, method: str = "lora") -> Setting:
    return replace(
        setting_of(LLAMA_8B, training={"method": method}), loss_chunk_tokens=chunk_tokens
    )


def test_lora_takes_trained_tokens_alone() -> None:
    assert choice().value == 512
    assert choice(hardware={}).value == 128


def test_full_training_takes_them_where_rows_are_long_enough_to_pay_for_the_gradient() -> None:
    assert choice(method="full", row_tokens=2048).value == 512
    short = choice(method="full", row_tokens=1024)
    assert short.value is None
    assert "24,576 bytes a word" in short.reason
    assert "14,336" in short.reason


def test_a_type_whose_loss_would_be_another_one_keeps_whole_logits_and_refuses_otherwise() -> None:
    kept = choice(model_type="recurrent_gemma")
    assert kept.value is None
    assert "recurrent_gemma" in kept.reason
    with pytest.raises(
        ModelError,
        match=r"training\.output_layer: found trained_tokens, .*Fix: remove training\.output_layer",
    ):
        choice("trained_tokens", "recurrent_gemma")


def test_what_the_spec_says_is_done() -> None:
    assert choice("all_tokens").value is None
    assert choice("trained_tokens", method="full", row_tokens=16).value == 512


def test_the_loss_of_llama_3_8b_takes_a_twelfth_of_whole_logits() -> None:
    """4,096 tokens x 128,256 words x 14 B = 7.35 GB; 512 x 128,256 x 8 B + 2 x 4,096 x 4,096 x 2 B
    = 0.59 GB."""
    assert at_the_loss(setting(None), 1) == 14 * 4096 * 128_256
    assert at_the_loss(setting(512), 1) == 8 * 512 * 128_256 + 4 * 4096 * 4096


def test_full_training_pays_for_the_gradient_of_the_output_layer() -> None:
    full, lora = setting(512, method="full"), setting(512)
    assert at_the_loss(full, 1) - at_the_loss(lora, 1) == 6 * 128_256 * 4096


def test_smoothed_labels_need_the_loss_at_trained_tokens() -> None:
    assert choice(method="full", row_tokens=16, label_smoothing=0.1).value == 512
    with pytest.raises(
        ModelError,
        match=(
            r"training\.label_smoothing: found 0\.1 beside .*all_tokens.*Fix: remove "
            r"training\.output_layer"
        ),
    ):
        choice("all_tokens", label_smoothing=0.1)
    with pytest.raises(
        ModelError,
        match=r"recurrent_gemma model keeps its own loss.*Fix: remove training\.label_smoothing",
    ):
        choice(model_type="recurrent_gemma", label_smoothing=0.1)
