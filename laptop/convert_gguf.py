"""A GGUF file of SmolLM2 -> a Hugging Face folder (bf16 safetensors, config, tokenizer with chat
template), checked.

bf16 instead of fp32 halves the folder (269 MB) and moves the model's next-token distribution by
0.0001 nats.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from torch.nn.functional import kl_div
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.utils import logging

from components.shared.errors import ModelError

KL_LIMIT = 0.01
"""Nats per token; rounding to bf16 costs 0.0001 here, one weight matrix gone wrong costs whole
nats."""
PROBE = (
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nThe capital of France is "
    "Paris. 鋼は強い。"
)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """`folder` holds the model and tokenizer of the GGUF file, and needs no `gguf` package to be
    read.

    Raises:
        ModelError: what was written does not read back as the same model or the same tokenizer.
    """
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    source = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # The GGUF names its splitting rule only ("smollm": llama.cpp, src/llama-vocab.cpp: one digit a
    # piece, then GPT-2's rule), and transformers 5.23 leaves the digits out: "  7" would become
    # other ids than those the model was trained on.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.model_max_length = source.config.max_position_embeddings
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    save_plain(source, folder)
    ids = tokenizer(PROBE)["input_ids"]
    check_tokenizer(folder, ids)
    check_model(folder, source, torch.tensor([ids]))


def save_plain(source: PreTrainedModel, folder: Path) -> None:
    """The weights of a model read from GGUF are in `folder` as bf16.

    transformers 5.23 refuses to save such a model itself ("quantized with gguf"), though its
    weights are dense by now.
    """
    config = source.config.to_dict()
    config.pop("quantization_config")
    plain = LlamaForCausalLM(LlamaConfig.from_dict(config)).bfloat16()
    plain.load_state_dict(source.state_dict())
    plain.save_pretrained(folder)
    # save_pretrained lets this user alone read it; pods run as another.
    (folder / "model.safetensors").chmod(0o644)


def check_tokenizer(folder: Path, ids: list[int]) -> None:
    """`tokenizers` and transformers both read the folder's tokenizer and get `ids` for PROBE.
    Raises ModelError."""
    by_tokenizers = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(PROBE).ids
    by_transformers = AutoTokenizer.from_pretrained(folder)(PROBE)["input_ids"]
    if not ids == by_tokenizers == by_transformers:
        raise ModelError(
            "demo model: the tokenizer read back gives other ids; install the locked versions "
            "(requirements/)"
        )


def check_model(folder: Path, source: PreTrainedModel, ids: torch.Tensor) -> None:
    """The folder's model gives `source`'s next-token distributions for `ids` [1, T] within
    KL_LIMIT. Raises ModelError."""
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected, found = (
            model(ids).logits.log_softmax(-1).flatten(0, 1) for model in (source, saved)
        )
    kl = kl_div(found, expected, log_target=True, reduction="batchmean").item()
    if not kl < KL_LIMIT:
        raise ModelError(
            f"demo model: the model read back is {kl:.4f} nats from the GGUF file's, must be below "
            f"{KL_LIMIT}"
        )
