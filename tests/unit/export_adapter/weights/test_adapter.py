import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from components.export_adapter.weights.adapter import (
    adapter_problems,
    config_problems,
    expected_adapter,
)
from components.render_config.choose.lora import lora_plan
from components.render_config.model.architectures import architecture_of
from components.render_config.model.targets import lora_targets
from components.shared.documents.plan import LoraPlan
from components.shared.spec.training import LoraSpec
from tests.support.tiny_models import make_model

# peft 0.21.2 asks transformers 5.23 by an old name
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

EXPECTED = {
    "layer.lora_A.weight": (2, 8),
    "layer.lora_B.weight": (8, 2),
    "head.lora_A.weight": (2, 8),
    "head.lora_B.weight": (8, 2),
}


def sound() -> dict[str, torch.Tensor]:
    return {name: torch.ones(shape) for name, shape in EXPECTED.items()}


def test_sound_adapter_has_no_problems():
    assert adapter_problems(sound(), EXPECTED) == []


def test_empty_matrix_is_named():
    problems = adapter_problems(sound() | {"head.lora_A.weight": torch.zeros(0)}, EXPECTED)
    assert problems == [
        (
            "1 matrices are empty: they were saved without being gathered from the processes: "
            "head.lora_A.weight"
        )
    ]


def test_matrix_of_another_rank_is_named():
    (problem,) = adapter_problems(sound() | {"head.lora_A.weight": torch.ones(4, 8)}, EXPECTED)
    assert problem.startswith("1 matrices are of another shape than the plan's rank")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_matrix_that_is_not_finite_is_named(value: float):
    (problem,) = adapter_problems(
        sound() | {"layer.lora_A.weight": torch.full((2, 8), value)}, EXPECTED
    )
    assert problem == "1 matrices are not finite: layer.lora_A.weight"


def test_adapter_whose_every_b_is_zero_is_refused():
    zero = {name: torch.zeros(shape) for name, shape in EXPECTED.items() if "lora_B" in name}
    (problem,) = adapter_problems(sound() | zero, EXPECTED)
    assert problem.startswith("all 2 B matrices are zero")


def test_one_zero_b_among_trained_ones_is_accepted():
    assert adapter_problems(sound() | {"head.lora_B.weight": torch.zeros(8, 2)}, EXPECTED) == []


def test_absent_and_foreign_matrices_are_reported_in_one_go():
    tensors = sound()
    tensors["tail.lora_A.weight"] = tensors.pop("head.lora_A.weight")
    absent, foreign = adapter_problems(tensors, EXPECTED)
    assert (
        absent == "1 matrices are absent, though the plan trains their layers: head.lora_A.weight"
    )
    assert foreign == "1 matrices are of layers that the plan does not train: tail.lora_A.weight"


@pytest.mark.parametrize(
    ("architecture", "target"), [("llama", "down_proj"), ("gpt_neox", "query_key_value")]
)
def test_expected_shapes_are_those_that_peft_saves(tmp_path: Path, architecture, target: str):
    base = make_model(tmp_path / "base", architecture=architecture)
    config = LoraConfig(r=3, target_modules=[target], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(
        str(tmp_path / "adapter")
    )
    saved = {
        name: tuple(tensor.shape)
        for name, tensor in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items()
    }
    assert (
        expected_adapter(
            base, LoraPlan(rank=3, alpha=6.0, dropout=0.0, target_modules=(target,))
        ).shapes
        == saved
    )


@pytest.mark.parametrize("asked", ["auto", "attention", "mlp"])
@pytest.mark.parametrize("architecture", ["qwen3_moe", "mixtral", "gpt_oss"])
def test_the_matrices_of_experts_are_expected_as_peft_saves_them(
    tmp_path: Path, architecture: Any, asked: str
):
    base = make_model(tmp_path / "base", architecture=architecture)
    shapes = architecture_of(json.loads((base / "config.json").read_bytes()))
    lora = lora_plan(LoraSpec(rank=2), lora_targets(asked, shapes))
    get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(**lora.peft_config)
    ).save_pretrained(str(tmp_path / "adapter"))
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert (
        adapter_problems(
            {name: torch.ones_like(tensor) for name, tensor in saved.items()},
            expected_adapter(base, lora).shapes,
        )
        == []
    )
    assert any("experts" in name for name in saved) == (asked != "attention")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_bytes())
    assert config_problems(config, lora.peft_config) == []
