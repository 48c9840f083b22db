"""config.json -> the shapes of a model's linear layers and its parameter count, by arithmetic: no weights, no torch.

Every formula is held against the real model, built on torch's meta device, in tests/unit/render_config.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.shared.errors import ModelError


@dataclass(frozen=True)
class Linear:
    """One kind of linear layer, found once in every block."""

    name: str
    num_inputs: int
    num_outputs: int


@dataclass(frozen=True)
class Architecture:
    model_type: str
    num_blocks: int
    hidden_size: int
    linears: tuple[Linear, ...]
    num_parameters: int
    largest_layer_parameters: int
    """Parameters of the largest single weight, head and embedding included."""


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The shapes that a config.json stands for.

    Raises:
        ModelError: a model type that is not known here, or a field that its formula needs is absent.
    """
    model_type = config.get("model_type")
    build = _BUILDERS.get(str(model_type))
    if build is None:
        raise ModelError(f"model.source: config.json has model_type {model_type!r}, planned are: {', '.join(sorted(_BUILDERS))}")
    try:
        return build(config)
    except KeyError as error:
        raise ModelError(f"model.source: config.json of a {model_type} model has no field {error}") from None


def lora_targets(asked: Literal["auto"] | tuple[str, ...], architecture: Architecture) -> tuple[str, ...]:
    """The layer names that LoRA is put beside: all of the blocks' linear layers, or just those asked for, in the model's order.

    Raises:
        ModelError: a name that no linear layer of the blocks has; tells near misses and all that there are.
    """
    names = tuple(linear.name for linear in architecture.linears)
    if asked == "auto":
        return names
    if not asked:
        raise ModelError(f"lora.targets: the list is empty; write auto or some of: {', '.join(names)}")
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise ModelError(*(_unknown_target(name, names, architecture.model_type) for name in unknown))
    return tuple(name for name in names if name in asked)


def num_lora_parameters(targets: tuple[str, ...], rank: int, architecture: Architecture) -> int:
    """Parameters of all A (rank x inputs) and B (outputs x rank) matrices (Hu et al. 2021, section 4.1)."""
    chosen = (linear for linear in architecture.linears if linear.name in targets)
    return architecture.num_blocks * sum(rank * (linear.num_inputs + linear.num_outputs) for linear in chosen)


def _unknown_target(name: str, names: tuple[str, ...], model_type: str) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"lora.targets: {name!r} is no linear layer of this {model_type} model; {hint}it has: {', '.join(names)}"


def _llama_like(config: Mapping[str, Any], *, qkv_bias: bool, out_bias: bool, mlp_bias: bool, qk_norm: bool) -> Architecture:
    """transformers 5.23 models/{llama,mistral,qwen2,qwen3}: q, k, v, o, gate, up, down and two RMS norms a block."""
    hidden, inner, blocks = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or hidden // heads
    queries, keys = heads * head_size, (config.get("num_key_value_heads") or heads) * head_size
    linears = (
        Linear("q_proj", hidden, queries),
        Linear("k_proj", hidden, keys),
        Linear("v_proj", hidden, keys),
        Linear("o_proj", queries, hidden),
        Linear("gate_proj", hidden, inner),
        Linear("up_proj", hidden, inner),
        Linear("down_proj", inner, hidden),
    )
    biases = qkv_bias * (queries + 2 * keys) + out_bias * hidden + mlp_bias * (2 * inner + hidden)
    norms = 2 * hidden + qk_norm * 2 * head_size
    return _assemble(config, linears, blocks=blocks, extra_per_block=biases + norms, final_norm=hidden)


def _llama(config: Mapping[str, Any]) -> Architecture:
    bias = bool(config.get("attention_bias", False))
    return _llama_like(config, qkv_bias=bias, out_bias=bias, mlp_bias=bool(config.get("mlp_bias", False)), qk_norm=False)


def _mistral(config: Mapping[str, Any]) -> Architecture:
    return _llama_like(config, qkv_bias=False, out_bias=False, mlp_bias=False, qk_norm=False)


def _qwen2(config: Mapping[str, Any]) -> Architecture:
    return _llama_like(config, qkv_bias=True, out_bias=False, mlp_bias=False, qk_norm=False)


def _qwen3(config: Mapping[str, Any]) -> Architecture:
    bias = bool(config.get("attention_bias", False))
    return _llama_like({"head_dim": 128, **config}, qkv_bias=bias, out_bias=bias, mlp_bias=False, qk_norm=True)


def _gpt_neox(config: Mapping[str, Any]) -> Architecture:
    """transformers 5.23 models/gpt_neox: one fused query_key_value, dense, two MLP layers, two layer norms with bias a block."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    linears = (
        Linear("query_key_value", hidden, 3 * hidden),
        Linear("dense", hidden, hidden),
        Linear("dense_h_to_4h", hidden, inner),
        Linear("dense_4h_to_h", inner, hidden),
    )
    attention_bias = 4 * hidden if config.get("attention_bias", True) else 0
    extra = attention_bias + inner + hidden + 4 * hidden
    return _assemble(config, linears, blocks=config["num_hidden_layers"], extra_per_block=extra, final_norm=2 * hidden)


def _assemble(
    config: Mapping[str, Any], linears: tuple[Linear, ...], *, blocks: int, extra_per_block: int, final_norm: int
) -> Architecture:
    hidden, embedding = config["hidden_size"], config["vocab_size"] * config["hidden_size"]
    weights = [linear.num_inputs * linear.num_outputs for linear in linears]
    heads = 1 if config.get("tie_word_embeddings", False) else 2
    return Architecture(
        model_type=str(config["model_type"]),
        num_blocks=blocks,
        hidden_size=hidden,
        linears=linears,
        num_parameters=heads * embedding + blocks * (sum(weights) + extra_per_block) + final_norm,
        largest_layer_parameters=max(embedding, *weights),
    )


_BUILDERS: dict[str, Callable[[Mapping[str, Any]], Architecture]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gpt_neox": _gpt_neox,
}
