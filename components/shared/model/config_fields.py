"""A model's config.json -> fields that contradict each other, and fields that transformers does not
read.

The fields of each model type are in config_fields.json, written by `make golden` from transformers'
configuration classes. Nothing here builds a model.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from components.shared.documents.fields import FrozenModel
from components.shared.printable import shown

Config = Mapping[str, Any]

FLAGS: Final = (
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "use_sliding_window",
    "use_parallel_residual",
    "norm_topk_prob",
    "is_decoder",
)
"""Fields of config.json that are true or false. Python takes the text "false" for true."""
ACTIVATIONS: Final = ("hidden_act", "hidden_activation", "activation_function")
HEADS_DIVIDE_HIDDEN: Final = (
    "gpt2",
    "gpt_neox",
    "gpt_neox_japanese",
    "llama",
    "mistral",
    "mixtral",
    "phi3",
    "qwen2",
)
"""Model types whose heads have hidden_size / num_attention_heads numbers where no head_dim is
given."""
SAME: Final = (
    ("hidden_size", "n_embd"),
    ("num_hidden_layers", "n_layer"),
    ("num_attention_heads", "n_head"),
    ("max_position_embeddings", "n_positions"),
    ("num_local_experts", "num_experts"),
)
"""Two names of one size."""
EXPERTS: Final = ("num_local_experts", "num_experts", "n_routed_experts")
ELSEWHERE: Final = frozenset(
    {
        *("model_type", "auto_map", "quantization_config", "torch_dtype", "_name_or_path"),
        *("_attn_implementation", "attn_implementation", "experts_implementation"),
        *("rope_scaling", "rope_theta", "partial_rotary_factor", "rotary_pct"),
        *("rotary_emb_base", "rope_local_base_freq", "unsloth_version", "unsloth_fixed"),
        *("tokenizer_class", "prefix", "finetuning_task", "task_specific_params"),
        *("output_attentions", "tie_encoder_decoder", "cross_attention_hidden_size"),
        *("torchscript", "pruned_heads", "use_bfloat16", "tf_legacy_loss", "is_decoder"),
        *("add_cross_attention", "sep_token_id", "decoder_start_token_id", "pretraining_tp"),
        *("gradient_checkpointing", "transformers.js_config", "use_cache", "cache_implementation"),
    }
)
"""Read by other parts of transformers, or without effect on training, whatever the model type."""


class FieldsOfTypes(FrozenModel):
    """What one version of transformers reads from a config.json."""

    transformers: str
    every_type: frozenset[str]
    """Fields of all types, and those of text generation, which older files keep here."""
    activations: frozenset[str]
    types: dict[str, frozenset[str]]
    """Model type -> its own fields, under each name that is read."""


@cache
def fields_of_types() -> FieldsOfTypes:
    text = Path(__file__).with_name("config_fields.json").read_text(encoding="utf-8")
    tree = json.loads(text)
    return FieldsOfTypes(
        transformers=tree["transformers"],
        every_type=frozenset(tree["every_type"].split()),
        activations=frozenset(tree["activations"].split()),
        types={name: frozenset(fields.split()) for name, fields in tree["types"].items()},
    )


def contradictions(config: Config) -> list[str]:
    """One line for each field that another field contradicts, or whose value is no choice."""
    lines = [f"{problem}" for problem in _contradictions(config)]
    text = config.get("text_config")
    if isinstance(text, Mapping):
        lines += [f"text_config.{problem}" for problem in _contradictions(text)]
    return lines


def unread_fields(config: Config) -> list[str]:
    """Fields that transformers reads for no model of this type, dotted; none for unknown types."""
    return [f"{where}{name}" for where, part in _parts(config) for name in _unread(part)]


def _parts(config: Config) -> Iterator[tuple[str, Config]]:
    yield "", config
    text = config.get("text_config")
    if isinstance(text, Mapping):
        yield "text_config.", text


def _unread(config: Config) -> list[str]:
    known = fields_of_types()
    fields = known.types.get(str(config.get("model_type")))
    if fields is None:
        return []
    unknown = config.keys() - fields - known.every_type - ELSEWHERE
    return sorted(name for name in unknown if not _is_note(name))


def _is_note(name: str) -> bool:
    """A name that begins with _ says where the model comes from, and a token's id is the
    tokenizer's: neither changes a logit."""
    return name.startswith("_") or name.endswith("_token_id")


def _contradictions(config: Config) -> Iterator[str]:
    yield from _no_flags(config)
    yield from _two_names(config)
    yield from _heads(config)
    yield from _experts(config)
    yield from _layers(config)
    yield from _activations(config)


def _no_flags(config: Config) -> Iterator[str]:
    for name in FLAGS:
        value = config.get(name)
        if value is not None and not isinstance(value, bool):
            yield f"{name}: got {shown(value)}, must be true or false"


def _two_names(config: Config) -> Iterator[str]:
    for name, other in SAME:
        one, two = config.get(name), config.get(other)
        if one is not None and two is not None and one != two:
            yield (
                f"{name}: got {shown(one)}, but {other}, another name of the same size, is "
                f"{shown(two)}; remove the wrong one"
            )


def _heads(config: Config) -> Iterator[str]:
    heads = _whole(config, "num_attention_heads", "n_head")
    keys = _whole(config, "num_key_value_heads")
    hidden = _whole(config, "hidden_size", "n_embd")
    if heads and keys and heads % keys:
        yield f"num_key_value_heads: got {keys}, must divide num_attention_heads, {heads}"
    sized = config.get("head_dim") is not None
    derived = config.get("model_type") in HEADS_DIVIDE_HIDDEN and not sized
    if heads and hidden and derived and hidden % heads:
        yield (
            f"num_attention_heads: got {heads}, must divide the hidden size, {hidden}, where no "
            "head_dim is given"
        )


def _experts(config: Config) -> Iterator[str]:
    active, num_experts = _whole(config, "num_experts_per_tok"), _whole(config, *EXPERTS)
    if active and num_experts and active > num_experts:
        yield f"num_experts_per_tok: got {active}, but the model has {num_experts} experts"


def _layers(config: Config) -> Iterator[str]:
    kinds, layers = config.get("layer_types"), _whole(config, "num_hidden_layers", "n_layer")
    if isinstance(kinds, list) and layers and len(kinds) != layers:
        yield f"layer_types: got {len(kinds)} names, must be {layers}, as num_hidden_layers says"


def _activations(config: Config) -> Iterator[str]:
    if config.get("model_type") not in HEADS_DIVIDE_HIDDEN:
        return
    for name in ACTIVATIONS:
        value = config.get(name)
        known = isinstance(value, str) and value in fields_of_types().activations
        if value is not None and not known:
            yield f"{name}: got {shown(value)}, which is no activation that transformers has"


def _whole(config: Config, *names: str) -> int | None:
    """The first of these that is a whole number."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
