"""A base in 4 bits, loaded as training loads it: real bitsandbytes on tiny models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from components.render_config.choose.quantization import choose_quantization
from components.render_config.cost.quantized import base_bytes
from components.render_config.model.architectures import architecture_of
from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.shared.documents.plan import Plan
from components.shared.spec.file import spec_from_parameter
from components.train.checkpoints.saving import _without_frozen
from components.train.model.loading import load_model
from tests.support.tiny_models import Architecture, make_model

DATASET = DatasetFacts(digest="d" * 64, num_rows=8, num_tokens=900, model_revision=None)
TOKENS = torch.arange(12)[None]


def plan_for(folder: Path, precision: str = "fp32", quantization: str = "nf4") -> Plan:
    config = json.loads((folder / "config.json").read_bytes())
    spec = spec_from_parameter(
        {
            "name": "t",
            "store": "s",
            "model": {"source": str(folder), "quantization": quantization},
            "data": {"train": "d", "row_tokens": 64},
            "training": {"precision": precision},
            "zero": {"stage": 0},
        }
    )
    return make_plan(spec, DATASET, config, machine=Machine())


def loaded(folder: Path, plan: Plan) -> Any:
    assert plan.lora is not None
    return load_model(folder, plan, lora=plan.lora.peft_config, seed=0)


def quantized_layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "compute_type_is_set")]


def bits_of(layer: Any) -> torch.Tensor:
    """Its 4-bit numbers, of which some pairs are no number when read as bf16."""
    return layer.weight.detach().clone().view(torch.uint8)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gemma"])
def test_the_file_of_the_weights_leaves_the_memory(
    tmp_path: Path, architecture: Architecture
) -> None:
    folder = make_model(tmp_path / "model", architecture=architecture)
    file = str((folder / "model.safetensors").resolve())
    model = loaded(folder, plan_for(folder))
    assert file not in Path("/proc/self/maps").read_text()
    plain = loaded(folder, plan_for(folder, quantization="none"))
    assert file in Path("/proc/self/maps").read_text()
    for name, parameter in plain.named_parameters():
        if "embed" in name:
            assert torch.equal(model.get_parameter(name), parameter)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gemma", "qwen3", "bloom"])
def test_as_many_parameters_are_in_4_bits_as_the_plan_says(
    tmp_path: Path, architecture: Architecture
) -> None:
    folder = make_model(tmp_path / "model", architecture=architecture)
    plan = plan_for(folder)
    model = loaded(folder, plan)
    found = [layer.weight.quant_state.shape.numel() for layer in quantized_layers(model)]
    assert sum(found) == plan.model.num_quantized
    choice = choose_quantization(
        spec_from_parameter(
            {
                "name": "t",
                "store": "s",
                "model": {"source": "m", "quantization": "nf4"},
                "data": {"train": "d"},
            }
        ),
        {},
        architecture_of(json.loads((folder / "config.json").read_bytes())),
    )
    assert choice.value.largest == max(found)


@pytest.mark.parametrize(("precision", "weight_bytes"), [("fp32", 4), ("bf16", 2)])
def test_weights_take_the_bytes_of_the_plan(
    tmp_path: Path, precision: str, weight_bytes: int
) -> None:
    folder = make_model(tmp_path / "model", hidden=256)
    plan = plan_for(folder, precision)
    model = loaded(folder, plan)
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in frozen)
    for layer in quantized_layers(model):
        state = layer.weight.quant_state
        scales = (state.absmax, state.state2.absmax)
        num_bytes += sum(each.numel() * each.element_size() for each in scales)
    planned = base_bytes(plan.model.num_parameters, plan.model.num_quantized, weight_bytes)
    assert num_bytes == pytest.approx(planned, rel=0.005)


def test_measuring_between_steps_changes_no_weight(tmp_path: Path) -> None:
    """bitsandbytes packs weights anew in evaluation mode, where the processor has avx512_bf16."""
    folder = make_model(tmp_path / "model")
    model = loaded(folder, plan_for(folder, "bf16"))
    before = [bits_of(layer) for layer in quantized_layers(model)]
    with torch.no_grad():
        measured = model.eval()(input_ids=TOKENS).logits
    trained = model.train()(input_ids=TOKENS).logits
    assert torch.equal(measured, trained)
    for layer, bits in zip(quantized_layers(model), before, strict=True):
        assert torch.equal(bits_of(layer), bits)
        assert layer.weight.quant_state.nested


def test_files_in_4_bits_give_the_logits_of_the_model_that_wrote_them(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    model = loaded(folder, plan_for(folder))
    expected = model(input_ids=TOKENS).logits
    written = tmp_path / "written"
    plain = plan_for(folder)
    base = model.unload()
    base.save_pretrained(written)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (written / name).write_bytes((folder / name).read_bytes())
    plan = plan_for(written, quantization="auto")
    assert plan.model.quantization == "nf4"
    assert plan.model.num_quantized == plain.model.num_quantized
    assert torch.equal(loaded(written, plan)(input_ids=TOKENS).logits, expected)


def test_a_checkpoint_holds_no_scales_of_the_frozen_base(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    model = loaded(folder, plan_for(folder))
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
    module = {name: each for name, each in model.state_dict().items() if name not in frozen}
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert any("absmax" in name for name in module)
    assert set(_without_frozen({"module": module}, frozenset())["module"]) == trained
