"""Where the plan has the output layer work at trained tokens alone, and what that does to the planned memory."""

from typing import Any

import pytest

from components.render_config.choose.output_layer import OutputLayerChoice, choose_output_layer
from components.render_config.cost.activations import Pass, at_the_loss
from components.render_config.model.architectures import architecture_of
from components.shared.errors import ModelError

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128_256,
}  # fmt: skip


def choice(asked: Any = "auto", model_type: str = "llama", **given: Any) -> OutputLayerChoice:
    usual: dict[str, Any] = {"full": False, "on_gpu": True, "tokens": 4096, "hidden_size": 4096, "weight_bytes": 2}
    return choose_output_layer(asked, {"model_type": model_type}, **(usual | given))


def work(chunk_tokens: int | None, *, full: bool = False) -> Pass:
    return Pass(
        micro_batch=1, row_tokens=4096, weight_bytes=2, full=full, adapted=(), experts_adapted=False, rank=16, checkpointing=True,
        fp32_adapters=False, loss_chunk_tokens=chunk_tokens,
    )  # fmt: skip


def test_lora_takes_trained_tokens_alone() -> None:
    assert choice().chunk_tokens == 512
    assert choice(on_gpu=False).chunk_tokens == 128


def test_full_training_takes_them_where_rows_are_long_enough_to_pay_for_the_gradient() -> None:
    assert choice(full=True, tokens=2048).chunk_tokens == 512
    short = choice(full=True, tokens=1024)
    assert short.chunk_tokens is None
    assert "24,576 bytes a word" in short.reason
    assert "14,336" in short.reason


def test_a_type_whose_loss_would_be_another_one_keeps_whole_logits_and_refuses_otherwise() -> None:
    kept = choice(model_type="recurrent_gemma")
    assert kept.chunk_tokens is None
    assert "recurrent_gemma" in kept.reason
    with pytest.raises(ModelError, match=r"training\.output_layer: found trained_tokens, .*Fix: remove training\.output_layer"):
        choice("trained_tokens", "recurrent_gemma")


def test_what_the_spec_says_is_done() -> None:
    assert choice("all_tokens").chunk_tokens is None
    assert choice("trained_tokens", full=True, tokens=16).chunk_tokens == 512


def test_the_loss_of_llama_3_8b_takes_a_twelfth_of_whole_logits() -> None:
    """4,096 tokens x 128,256 words x 14 B = 7.35 GB; 512 x 128,256 x 8 B + 2 x 4,096 x 4,096 x 2 B = 0.59 GB."""
    architecture = architecture_of(LLAMA_8B)
    assert at_the_loss(architecture, work(None)) == 14 * 4096 * 128_256
    assert at_the_loss(architecture, work(512)) == 8 * 512 * 128_256 + 4 * 4096 * 4096


def test_full_training_pays_for_the_gradient_of_the_output_layer() -> None:
    architecture = architecture_of(LLAMA_8B)
    more = at_the_loss(architecture, work(512, full=True)) - at_the_loss(architecture, work(512))
    assert more == 6 * 128_256 * 4096


def test_smoothed_labels_need_the_loss_at_trained_tokens() -> None:
    assert choice(full=True, tokens=16, label_smoothing=0.1).chunk_tokens == 512
    with pytest.raises(ModelError, match=r"training\.label_smoothing: found 0\.1 beside .*all_tokens.*Fix: remove training\.output_layer"):
        choice("all_tokens", label_smoothing=0.1)
    with pytest.raises(ModelError, match=r"recurrent_gemma model keeps its own loss.*Fix: remove training\.label_smoothing"):
        choice(model_type="recurrent_gemma", label_smoothing=0.1)
