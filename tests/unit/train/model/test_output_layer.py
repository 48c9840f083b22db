"""Loss and gradients of the output layer at trained tokens alone, against transformers' own on the same model."""

from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from components.shared.errors import ModelError
from components.train.loop.rows import Row, collate
from components.train.model.output_layer import OutputLayer, mean_loss
from tests.support.small_models import VOCABULARY, small_model

TYPES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("qwen3", {"tie_word_embeddings": True}),
    ("gpt_neox", {}),
    ("gpt2", {}),
    ("phi", {}),
    ("gemma2", {"final_logit_softcapping": 2.0}),
    ("gemma3_text", {"final_logit_softcapping": 2.0}),
    ("cohere", {"logit_scale": 0.25}),
    ("granite", {"logits_scaling": 4.0}),
    ("mixtral", {}),
]
"""Untied and tied heads, one with a bias (Phi), soft caps, scales, a mixture of experts."""


def batch(*, untrained: bool = True) -> dict[str, torch.Tensor]:
    """Two rows, one packed; a third of their tokens is not trained."""
    generator = torch.Generator().manual_seed(3)
    tokens = [torch.randint(3, VOCABULARY, (count,), generator=generator).tolist() for count in (30, 21, 12)]
    rows: list[Row] = [
        {"input_ids": tokens[0], "labels": tokens[0], "lengths": [len(tokens[0])]},
        {"input_ids": tokens[1] + tokens[2], "labels": tokens[1] + tokens[2], "lengths": [len(tokens[1]), len(tokens[2])]},
    ]
    made: Any = collate(rows)
    if untrained:
        made["labels"][:, ::3] = -100
    return made


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def own_loss(model: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**given, num_items_in_batch=torch.tensor(100)).loss


def chunked_loss(model: Any, given: dict[str, torch.Tensor], layer: OutputLayer) -> torch.Tensor:
    inputs = {name: each for name, each in given.items() if name != "labels"}
    with layer.losses_of(given["labels"]):
        return mean_loss(model(**inputs), given["labels"], torch.tensor(100))


@pytest.mark.parametrize(("model_type", "fields"), TYPES, ids=[name for name, _ in TYPES])
def test_loss_and_gradients_are_those_of_whole_logits(model_type: str, fields: dict[str, Any]) -> None:
    model, given = small_model(model_type, **fields), batch()
    wanted_loss = own_loss(model, given)
    wanted = gradients(model, wanted_loss)
    loss = chunked_loss(model, given, OutputLayer(model, chunk_tokens=7))
    found = gradients(model, loss)
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-6)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name


@pytest.mark.parametrize(("model_type", "fields"), TYPES, ids=[name for name, _ in TYPES])
def test_logits_are_as_before_outside(model_type: str, fields: dict[str, Any]) -> None:
    model, given = small_model(model_type, **fields), batch()
    with torch.no_grad():
        wanted = model(input_ids=given["input_ids"]).logits
        layer = OutputLayer(model, chunk_tokens=7)
        assert torch.equal(model(input_ids=given["input_ids"]).logits, wanted)
        with layer.last_logits_alone(5):
            last = model(input_ids=given["input_ids"]).logits
    torch.testing.assert_close(last, wanted[:, -5:])


def test_in_bf16_gradients_are_no_further_from_those_of_fp32() -> None:
    given = batch()
    exact_model = small_model("llama")
    exact = gradients(exact_model, own_loss(exact_model, given))
    model = small_model("llama", dtype=torch.bfloat16)
    whole = gradients(model, own_loss(model, given))
    chunked = gradients(model, chunked_loss(model, given, OutputLayer(model, chunk_tokens=7)))

    def error(found: dict[str, torch.Tensor]) -> float:
        squares = [(found[name].float() - exact[name]).square().sum() / exact[name].square().sum() for name in exact]
        return float(torch.stack(squares).mean().sqrt())

    print(f"whole {error(whole):.4f} chunked {error(chunked):.4f}")
    assert error(chunked) <= 1.15 * error(whole)


def test_the_size_of_a_chunk_changes_nothing_but_rounding() -> None:
    model, given = small_model("llama"), batch()
    losses = []
    for size in (1, 16, 1000):
        layer = OutputLayer(model, chunk_tokens=size)
        losses.append(chunked_loss(model, given, layer).item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_a_micro_batch_without_a_trained_token_has_no_loss_and_no_gradient() -> None:
    model, given = small_model("llama"), batch()
    given["labels"][:] = -100
    loss = chunked_loss(model, given, OutputLayer(model, chunk_tokens=7))
    assert loss.item() == 0
    assert all(not gradient.any() for gradient in gradients(model, loss).values())


def test_a_frozen_output_layer_gets_no_gradient() -> None:
    model, given = small_model("llama"), batch()
    model.lm_head.weight.requires_grad_(requires_grad=False)
    found = gradients(model, chunked_loss(model, given, OutputLayer(model, chunk_tokens=7)))
    assert "lm_head.weight" not in found
    assert "model.layers.0.mlp.up_proj.weight" in found


def test_no_gradient_is_made_where_none_is_asked_for() -> None:
    model, given = small_model("llama"), batch()
    wanted = own_loss(model, given)
    with torch.no_grad():
        loss = chunked_loss(model, given, OutputLayer(model, chunk_tokens=7))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert not loss.requires_grad


def test_the_most_memory_of_a_chunk_is_a_chunks_logits() -> None:
    """Of 128 tokens and 2,000 words, whole logits take 1 MB in fp32, those of 8 tokens 64 kB."""
    hidden_NH = torch.randn(1, 129, 4, requires_grad=True)
    model: Any = Headed(torch.nn.Linear(4, 2_000, bias=False))
    layer = OutputLayer(model, chunk_tokens=8)
    labels_BT = torch.randint(0, 2_000, (1, 129))
    sizes: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), how: Any = None) -> Any:
            made = function(*given, **(how or {}))
            sizes.append(made.nbytes if isinstance(made, torch.Tensor) and made._base is None else 0)
            return made

    model.head.weight.requires_grad_(requires_grad=False)
    with Sizes(), layer.losses_of(labels_BT):
        loss = model.head(hidden_NH).sum()
        loss.backward()
    assert max(sizes) <= 8 * 2_000 * 4
    reference = functional.cross_entropy(
        functional.linear(hidden_NH.detach(), model.head.weight)[0, :-1], labels_BT[0, 1:], reduction="sum"
    )
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)


class Headed(torch.nn.Module):
    """What OutputLayer asks of a model."""

    class Config:
        model_type = "headed"

        def get_text_config(self, *, decoder: bool) -> Any:
            return self

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head
        self.config = self.Config()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head


def test_an_output_layer_that_is_not_linear_is_refused_with_the_setting_that_helps() -> None:
    with pytest.raises(ModelError, match=r"training\.output_layer: a headed model .* but Embedding\. Fix: set all_tokens"):
        OutputLayer(Headed(torch.nn.Embedding(4, 4)), chunk_tokens=7)


@pytest.mark.parametrize("fields", [{}, {"final_logit_softcapping": 2.0}], ids=["plain", "soft cap"])
def test_smoothed_labels_are_those_of_torch_and_only_in_training(fields: dict[str, Any]) -> None:
    model, given = small_model("gemma2", **fields), batch()
    inputs = {name: each for name, each in given.items() if name != "labels"}
    targets = given["labels"][:, 1:].flatten()
    logits = model(**inputs).logits[:, :-1].flatten(0, 1)
    wanted_loss = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.1)
    plain_loss = functional.cross_entropy(logits, targets, reduction="sum")
    wanted = gradients(model, wanted_loss)
    layer = OutputLayer(model, chunk_tokens=7, label_smoothing=0.1)
    with layer.losses_of(given["labels"], to_train=True):
        loss = model(**inputs).logits.sum()
    found = gradients(model, loss)
    with torch.no_grad(), layer.losses_of(given["labels"]):
        measured = model(**inputs).logits.sum()
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-6)
    assert measured.item() == pytest.approx(plain_loss.item(), rel=1e-6)
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7, name
