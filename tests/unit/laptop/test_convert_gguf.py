"""A GGUF file becomes a folder that plain transformers and tokenizers read as the same model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from components.shared.errors import ModelError
from laptop.convert_gguf import check_model, check_tokenizer, convert_gguf
from tests.support.tiny_gguf import write_gguf
from tests.support.tiny_models import CHATML, make_model

READ_WITHOUT_GGUF = """
import sys
sys.modules["gguf"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(AutoTokenizer.from_pretrained(sys.argv[1])("hagane")["input_ids"])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose attention is far from even, so that queries and keys matter."""
    folder = make_model(tmp_path_factory.mktemp("source"))
    weights = load_file(folder / "model.safetensors")
    sharper = {name: 8 * weight if "q_proj" in name or "k_proj" in name else weight for name, weight in weights.items()}
    save_file(sharper, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert_gguf(write_gguf(source, folder / "tiny.gguf"), folder / "model")
    return folder / "model"


def test_converted_model_is_bf16_and_computes_what_the_source_does(source: Path, converted: Path) -> None:
    assert {tensor.dtype for tensor in load_file(converted / "model.safetensors").values()} == {torch.bfloat16}
    before, after = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (source, converted))
    tokens = torch.arange(4, 100).unsqueeze(0)
    with torch.no_grad():
        expected, found = before(tokens).logits, after(tokens).logits
    # 8-bit blocks and bf16 round: 0.015 here; queries and keys in GGUF's order instead of Hugging Face's: 0.6.
    assert (expected - found).abs().max() < 0.05 * expected.abs().max()


def test_converted_folder_is_read_without_the_gguf_package(converted: Path) -> None:
    command = [sys.executable, "-c", READ_WITHOUT_GGUF, str(converted)]
    read = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(read) == Tokenizer.from_file(str(converted / "tokenizer.json")).encode("hagane").ids


def test_converted_tokenizer_keeps_template_special_tokens_and_length(converted: Path) -> None:
    config = json.loads((converted / "tokenizer_config.json").read_text())
    assert config["chat_template"] == CHATML
    assert (config["bos_token"], config["eos_token"], config["model_max_length"]) == ("<|bos|>", "<|im_end|>", 512)


def test_converted_tokenizer_gives_each_digit_a_token_and_spaces_before_it_one(converted: Path) -> None:
    tokens = Tokenizer.from_file(str(converted / "tokenizer.json")).encode("is 12  19").tokens
    assert [token for token in tokens if token.isdigit()] == ["1", "2", "1", "9"]


def test_weights_that_differ_are_noticed(converted: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].flip(0)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"nats from the GGUF file's"):
        check_model(tmp_path, model, torch.arange(4, 100).unsqueeze(0))


def test_tokens_that_differ_are_noticed(converted: Path) -> None:
    with pytest.raises(ModelError, match="tokenizer read back gives other ids"):
        check_tokenizer(converted, [1, 2, 3])
