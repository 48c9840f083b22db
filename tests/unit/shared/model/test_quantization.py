from typing import Any

import pytest

from components.shared.model.folder import config_problems
from components.shared.model.quantization import loading_arguments, quantization_of_files

NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("section", "reported"),
    [
        ({**NF4, "bnb_4bit_quant_type": "fp4"}, "got 4 bits of kind 'fp4' of bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "got 8 bits of bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "got quant_method 'gptq'"),
        ({"quant_method": "awq"}, "got quant_method 'awq'"),
        ({"quant_method": "fp8"}, "got quant_method 'fp8'"),
    ],
)
def test_files_quantized_otherwise_than_nf4_are_refused_in_one_line(
    section: dict[str, Any], reported: str
) -> None:
    (problem,) = config_problems({"model_type": "llama", "quantization_config": section})
    assert problem.startswith("quantization_config: got")
    assert reported in problem
    assert problem.endswith("name the model's ordinary weights")


def test_files_that_bitsandbytes_made_nf4_of_are_loaded_as_they_are() -> None:
    config = {"model_type": "llama", "quantization_config": NF4}
    assert config_problems(config) == []
    assert quantization_of_files(config) == "nf4"
    assert loading_arguments("nf4", "bf16", config) == {}


def test_ordinary_files_are_quantized_into_numbers_that_deepspeed_divides() -> None:
    assert loading_arguments("none", "bf16", {}) == {}
    made = loading_arguments("nf4", "fp32", {})["quantization_config"]
    assert made["bnb_4bit_quant_storage"] == made["bnb_4bit_compute_dtype"] == "float32"
    assert made["bnb_4bit_use_double_quant"] is True
