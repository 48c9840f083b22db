"""Attention of each conversation by itself, against each conversation alone by the model's own attention."""

from typing import Any

import pytest
import torch
from transformers.masking_utils import sdpa_mask

from components.shared.errors import ModelError
from components.train.loop.rows import Row, collate, inputs_of, row_of
from components.train.model.apart import look, pair_of
from components.train.model.attention import ConversationAttention, spans_of
from components.train.model.own_layers import OwnLayers
from tests.support.small_models import VOCABULARY, small_model
from tests.truth.packing_table import gradients_of, sum_of_losses

CPU = torch.device("cpu")
CONVERSATIONS = [
    [list(range(3, 45)), list(range(20, VOCABULARY))],
    [list(range(50, 62)), list(range(7, 37)), list(range(5, 25))],
]
"""Of two rows: the windows of small models, 24 tokens, are shorter than some of them."""
TYPES = ("llama", "qwen3", "gemma2", "gemma3_text", "gpt_neox", "gpt2", "phi3", "gpt_oss", "llama4_text", "opt")
"""Grouped heads, norms of heads, soft caps, windows, joined queries and keys, sinks, chunks."""


def rows() -> list[Row]:
    return [row_of(conversations) for conversations in CONVERSATIONS]


def trained_alone(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    loss = sum_of_losses(model, [collate([row_of([each])]) for row in CONVERSATIONS for each in row])
    return loss.item(), gradients_of(model, loss)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "made again"])
@pytest.mark.parametrize("model_type", TYPES)
def test_packed_rows_are_trained_as_each_conversation_alone(model_type: str, checkpointing: bool) -> None:
    model = small_model(model_type)
    loss_alone, alone = trained_alone(model)
    own = OwnLayers(attention=ConversationAttention(model))
    if checkpointing:
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": False})
    batch = collate(rows())
    with own.rows_of(batch):
        loss = sum_of_losses(model, [batch])
        found = gradients_of(model, loss)
    assert loss.item() == pytest.approx(loss_alone, rel=1e-5)
    for name, gradient in found.items():
        assert (gradient - alone[name]).norm() <= 1e-4 * alone[name].norm() + 1e-6, name


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox"])
def test_nothing_as_large_as_a_square_of_the_row_is_kept(model_type: str) -> None:
    model = small_model(model_type)
    num_tokens = 512
    batch = collate([row_of([[5] * (num_tokens // 4)] * 4)])
    own = OwnLayers(attention=ConversationAttention(model))

    def largest(attention: OwnLayers) -> int:
        kept: list[int] = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor.untyped_storage().nbytes() // tensor.element_size())
            return tensor

        with attention.rows_of(batch), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.train()(**inputs_of(batch, CPU))
        return max(kept)

    assert largest(own) < num_tokens**2 / 2
    assert own.attention is not None
    with own.attention.left_out():
        assert largest(OwnLayers()) >= num_tokens**2


def packed_logits(model: Any) -> torch.Tensor:
    own, batch = OwnLayers(attention=ConversationAttention(model)), collate(rows())
    with torch.no_grad(), own.rows_of(batch):
        return model(**inputs_of(batch, CPU)).logits


@pytest.mark.parametrize("model_type", ["codegen", "bloom", "biogpt", "inkling_text"])
def test_a_model_that_attends_in_its_own_way_is_refused(model_type: str) -> None:
    with pytest.raises(ModelError, match=r"training\.attention: this model cannot"):
        packed_logits(small_model(model_type))


def test_conversations_begin_where_positions_are_0() -> None:
    assert spans_of(torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]])) == [[(0, 3), (3, 5), (5, 6)], [(0, 6)]]


def test_a_row_without_positions_is_one_conversation() -> None:
    model = small_model("llama")
    batch = collate([row_of(each[:1]) for each in CONVERSATIONS])
    assert "position_ids" not in batch
    with torch.no_grad():
        wanted = model(**inputs_of(batch, CPU)).logits
        own = OwnLayers(attention=ConversationAttention(model))
        with own.rows_of(batch):
            found = model(**inputs_of(batch, CPU)).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_models_own_attention_can_be_had_again() -> None:
    model = small_model("gemma2")
    before = model.config._attn_implementation
    attention = ConversationAttention(model)
    with attention.left_out():
        assert model.config._attn_implementation == before
    assert model.config._attn_implementation == "conversations"


def looked_at(model: Any, own: OwnLayers) -> Any:
    with torch.no_grad():
        return look(model, pair_of(CONVERSATIONS[0]), device=CPU, loss_kwargs={}, own=own)


@pytest.mark.parametrize("model_type", ["gpt_oss", "opt", "afmoe"])
def test_it_keeps_conversations_apart_where_the_models_mask_does_not(model_type: str) -> None:
    model = small_model(model_type)
    assert "see each other" in looked_at(model, OwnLayers()).problem("fp32")
    assert looked_at(model, OwnLayers(attention=ConversationAttention(model))).problem("fp32") is None


def test_attention_that_is_not_the_models_own_is_seen_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("gemma3_text")
    own = OwnLayers(attention=ConversationAttention(model))
    forget_windows(monkeypatch)
    problem = looked_at(model, own).problem("fp32")
    assert "is not the model's own" in problem
    assert "Fix: set training.attention: sdpa or eager" in problem


def forget_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.model.attention._are_plain", lambda squares: [True] * len(squares))


@pytest.mark.parametrize(("model_type", "made"), [("llama", 0), ("gemma3_text", 1)])
def test_squares_are_made_only_where_a_window_is_shorter_than_a_conversation(
    model_type: str, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    squares: list[int] = []

    def counted(*arguments: Any, **named: Any) -> Any:
        squares.append(arguments[1])
        return sdpa_mask(*arguments, **named)

    monkeypatch.setattr("components.train.model.attention.sdpa_mask", counted)
    model = small_model(model_type)
    batch = collate([row_of([[5] * 20, [6] * 200])])
    own = OwnLayers(attention=ConversationAttention(model))
    with torch.no_grad(), own.rows_of(batch):
        model(**inputs_of(batch, CPU))
    assert squares == [200] * made
