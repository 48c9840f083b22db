import pytest
import torch
from safetensors.torch import save_file

from components.export_adapter.weights.full import dtype_of, weight_problems
from components.shared.errors import ModelError

BASE = {"embed": torch.zeros(4, 2), "head": torch.zeros(4, 2)}


def test_all_that_is_wrong_with_the_weights_is_told_in_one_go():
    weights = {"embed": torch.full((4, 2), float("nan")), "tail": torch.zeros(1), "head": torch.zeros(0)}
    assert weight_problems(weights, BASE | {"norm": torch.zeros(2)}) == [
        "weight norm is absent",
        "weight embed is not finite",
        "weight tail is not the base model's",
        "weight head has shape [0], the base's has [4, 2]",
    ]


def test_the_bases_own_weights_have_no_problems():
    assert weight_problems(BASE, BASE) == []


def test_the_export_takes_the_number_format_of_the_bases_file(tmp_path):
    save_file({"w": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    assert dtype_of(tmp_path) == torch.bfloat16


def test_a_base_of_whole_numbers_is_refused(tmp_path):
    save_file({"w": torch.zeros(2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"holds weights as I8, must be one of F32, BF16, F16"):
        dtype_of(tmp_path)
