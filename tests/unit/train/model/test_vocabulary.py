"""Embeddings, head and new tokens trained beside LoRA's matrices: what plain peft makes of the
file, and the gradients of the rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from components.export_adapter.verification.logits import load_base
from components.export_adapter.weights.merge import merge
from components.export_adapter.weights.merge_quantized import merge_quantized
from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.shared.documents.plan import Plan
from components.shared.documents.prompts import NewToken
from components.shared.spec.file import spec_from_parameter
from components.train.loop.trainer import trainable_parameters
from components.train.model.loading import load_model
from components.train.model.output_layer import OutputLayer, mean_loss
from components.train.model.vocabulary import ROWS, add_vocabulary, vocabulary_tensors
from tests.support.tiny_models import Architecture, make_model

# peft 0.21.2 asks transformers 5.23 by an old name, and warns of tied layers that it gets whole
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings:UserWarning"),
]

NEW = (
    NewToken(text="<tool>", token_id=400, pieces=(31, 87, 82)),
    NewToken(text="鋼", token_id=401, pieces=(169,)),
)
TOKENS = torch.tensor([[5, 400, 9, 31, 401, 77, 400, 12]])
ALL = ["embeddings", "head"]


def plan_for(
    folder: Path, *, also: Any = "auto", with_new: bool = True, quantization: str = "none"
) -> Plan:
    config = json.loads((folder / "config.json").read_bytes())
    data = {"train": "d", "row_tokens": 64}
    if with_new:
        data["new_tokens"] = [each.text for each in NEW]
    spec = spec_from_parameter(
        {
            "name": "t",
            "store": "s",
            "model": {"source": str(folder), "quantization": quantization},
            "data": data,
            "training": {"precision": "fp32"},
            "lora": {"rank": 2, "also_train": also},
            "zero": {"stage": 0},
        }
    )
    dataset = DatasetFacts(digest="d", num_rows=8, num_tokens=900, model_revision=None)
    return make_plan(spec, dataset, config, machine=Machine())


def trained_model(folder: Path, plan: Plan, new: tuple[NewToken, ...] = NEW) -> Any:
    """As after some training: all that is trainable is moved. `load_model` has compared how many
    parameters that is with the plan."""
    assert plan.lora is not None
    model = load_model(folder, plan, lora=plan.lora.peft_config, seed=0, new_tokens=new)
    torch.manual_seed(1)
    for parameter in trainable_parameters(model).values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def save(model: Any, folder: Path) -> Path:
    """As a checkpoint has it."""
    weights = {name: each.detach() for name, each in trainable_parameters(model).items()}
    model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
    add_vocabulary(folder / "adapter_model.safetensors", vocabulary_tensors(model, weights))
    return folder


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    return model.eval()(input_ids=tokens, use_cache=False).logits


CASES = [
    ("llama", False, "auto"),
    ("llama", True, "auto"),
    ("gpt_neox", False, "auto"),
    ("gemma", True, "auto"),
    ("llama", False, ALL),
    ("llama", True, ALL),
    ("gpt_neox", False, ALL),
]


@pytest.mark.parametrize(("architecture", "tied", "also"), CASES)
def test_plain_peft_and_the_merged_model_give_the_trained_models_logits(
    tmp_path: Path, architecture: Architecture, tied: bool, also: Any
) -> None:
    base = make_model(tmp_path / "base", architecture=architecture, tie_word_embeddings=tied)
    plan = plan_for(base, also=also)
    model = trained_model(base, plan)
    expected, adapter = logits(model), save(model, tmp_path / "adapter")
    assert plan.lora is not None
    assert plan.model.num_embeddings == 402

    plain: Any = AutoModelForCausalLM.from_pretrained(base)
    plain.resize_token_embeddings(402, mean_resizing=False)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(plain, adapter)), expected)

    (tmp_path / "merged").mkdir()
    merge(base, adapter, plan.lora, tmp_path / "merged", new_tokens=NEW)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("tied", "also"), [(True, "auto"), (False, ALL)])
def test_on_a_base_in_4_bits_they_are_verified_and_merged(
    tmp_path: Path, tied: bool, also: Any
) -> None:
    base = make_model(tmp_path / "base", tie_word_embeddings=tied)
    plan = plan_for(base, also=also, quantization="nf4")
    model = trained_model(base, plan)
    expected, adapter = logits(model), save(model, tmp_path / "adapter")
    plain = load_base(base, torch.float32, quantized_from="fp32", new_tokens=NEW)
    tuned = PeftModel.from_pretrained(plain, adapter)
    torch.testing.assert_close(logits(tuned), expected, rtol=0, atol=1e-4)
    (tmp_path / "merged").mkdir()
    merge_quantized(base, adapter, "fp32", tmp_path / "merged", new_tokens=NEW)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.config.vocab_size == 402
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("part", ALL)
def test_one_untied_layer_is_trained_whole_by_itself(tmp_path: Path, part: str) -> None:
    base = make_model(tmp_path / "base")
    plan = plan_for(base, also=[part], with_new=False)
    model = trained_model(base, plan, ())
    adapter, tokens = save(model, tmp_path / "adapter"), torch.arange(20)[None]
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    torch.testing.assert_close(logits(plain, tokens), logits(model, tokens))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_rows_get_the_gradient_that_they_would_get_in_whole_layers(
    tmp_path: Path, tied: bool, chunked: bool
) -> None:
    base = make_model(tmp_path / "base", tie_word_embeddings=tied)
    whole = trained_model(base, plan_for(base, also=ALL))
    rows = load_model(
        base,
        plan_for(base),
        lora=plan_for(base).lora.peft_config,  # pyright: ignore[reportOptionalMemberAccess]
        seed=0,
        new_tokens=NEW,
    )
    ids = [each.token_id for each in NEW]
    for name in trainable_parameters(rows):
        there = trainable_parameters(whole)
        if not name.endswith(ROWS):
            trainable_parameters(rows)[name].data = there[name].data.clone()
    embeddings, head = rows.get_input_embeddings(), rows.get_output_embeddings()
    for mine, theirs in (
        (embeddings, whole.get_input_embeddings()),
        (head, whole.get_output_embeddings()),
    ):
        mine.weight.data = theirs.weight.data.clone()
        mine.new_rows.data = theirs.weight.data[ids].clone()
        mine.weight.data[ids] = 0  # the frozen weight has other rows

    losses = [_loss(model, chunked=chunked) for model in (whole, rows)]
    torch.testing.assert_close(losses[1], losses[0])
    of_whole, of_rows = whole.get_output_embeddings().weight.grad, head.new_rows.grad
    torch.testing.assert_close(of_rows, of_whole[ids])
    if not tied:
        of_whole = whole.get_input_embeddings().weight.grad
        torch.testing.assert_close(embeddings.new_rows.grad, of_whole[ids])


def _loss(model: Any, *, chunked: bool) -> torch.Tensor:
    """After whose backward pass gradients are there."""
    if chunked:
        with OutputLayer(model, chunk_tokens=3).losses_of(TOKENS):
            loss = mean_loss(model(input_ids=TOKENS, use_cache=False), TOKENS)
    else:
        loss = model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss
    loss.backward()
    return loss.detach()


def test_a_new_token_begins_as_the_mean_of_its_pieces(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    plan = plan_for(base)
    assert plan.lora is not None
    model = load_model(base, plan, lora=plan.lora.peft_config, seed=0, new_tokens=NEW)
    before: Any = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight
    rows: Any = model.get_input_embeddings().new_rows
    torch.testing.assert_close(rows[0], before[[31, 87, 82]].mean(dim=0))
    torch.testing.assert_close(rows[1], before[169])
    assert model.config.vocab_size == 402
