"""A model type of transformers -> a model of it with some ten thousand random weights, made in a fraction of a second.

Sizes are set by the names that configs give them, on the config and on the part of it that speaks; whatever else a type needs to
be built so small is in EXTRA. Weights are large enough that every layer counts: those of a fresh model hardly move its logits.
"""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from components.train.model.loading import turn_cache_off

VOCABULARY = 96
MOST_PARAMETERS = 20_000_000
WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "attention_hidden_size", "word_embed_proj_dim", "embedding_size")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers", "num_decoder_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads")
INNER = ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "d_ff", "feed_forward_size")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
LORA_RANKS = ("kv_lora_rank", "q_lora_rank", "o_lora_rank")
HEAD_SIZES = ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim", "index_head_dim", "attention_head_dim")
SIZES: dict[str, int] = {
    **dict.fromkeys(WIDTHS, 32),
    **dict.fromkeys(LAYERS, 2),
    **dict.fromkeys(HEADS, 4),
    **dict.fromkeys(INNER, 48),
    **dict.fromkeys(EXPERTS, 4),
    **dict.fromkeys(LENGTHS, 512),
    **dict.fromkeys(LORA_RANKS, 8),
    **dict.fromkeys(HEAD_SIZES, 8),
    "vocab_size": VOCABULARY,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "qk_head_dim": 16,
    "rotary_dim": 4,
    "state_size": 8,
    "n_group": 1,
    "topk_group": 1,
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size"), 24),
    "index_topk": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEAD_SIZE = {"head_dim": 8}
INPUT_A_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}
CONVOLUTION = {"layer_types": ["conv", "full_attention"]}
BAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
EXTRA: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bamba", "granitemoehybrid"), BAMBA),
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"), HEAD_SIZE),
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {"num_kv_shared_layers": 0, **INPUT_A_LAYER},
    **dict.fromkeys(("gemma4", "gemma4_text"), INPUT_A_LAYER),
    **dict.fromkeys(("lfm2", "lfm2_moe"), CONVOLUTION),
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 16},
    "marian": {"decoder_vocab_size": VOCABULARY},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"]},
    "xlstm": {"embedding_dim": 32},
    "xmod": {"default_language": "en_XX"},
}
"""Fields that the sizes above do not set, or not so that they fit together."""


def small_config(model_type: str, **fields: Any) -> Any:
    """Its config with default fields but for sizes and `fields`, and without dropout."""
    config = AutoConfig.for_model(model_type)
    for part in parts_of(config):
        for name, size in SIZES.items():
            if type(_field(part, name)) is int:
                _set(part, name, size)
        for name in [name for name in vars(part) if "drop" in name]:
            if isinstance(getattr(part, name), float):
                setattr(part, name, 0.0)
    text = config.get_text_config(decoder=True)
    if isinstance(_field(text, "kv_lora_rank"), int):
        _set(text, "num_key_value_heads", 4)  # latent attention has a key for each head
    spoken = text if any(part is text for part in parts_of(config)) else config  # of encoder-decoders it is a copy
    for name, value in (EXTRA.get(model_type, {}) | fields).items():
        setattr(spoken, name, value)
    kinds = _field(text, "layer_types")
    if isinstance(kinds, (list, tuple)) and kinds and "layer_types" not in EXTRA.get(model_type, {}):
        different = list(dict.fromkeys(kinds))
        few = (different * 2)[: max(2, len(different))]
        _set(text, "layer_types", few)
        _set(text, "num_hidden_layers", len(few))
    return config


def parts_of(config: Any) -> list[Any]:
    """The config and all configs within it."""
    within = [each for each in vars(config).values() if isinstance(each, PreTrainedConfig)]
    return [config, *(part for each in within for part in parts_of(each))]


def small_model(model_type: str, *, dtype: torch.dtype = torch.float32, **fields: Any) -> Any:
    """The model in evaluation mode; the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = small_config(model_type, **fields)
        with torch.device("meta"):
            size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
        assert size <= MOST_PARAMETERS, f"{size:,} parameters"
        model = AutoModelForCausalLM.from_config(config)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() >= 2 and weight.is_floating_point():
                    scale = 0.5 if "embed" in name else 0.5 / weight.shape[-1] ** 0.5
                    weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    turn_cache_off(model.config)
    return model.to(dtype).eval()


def _field(config: Any, name: str) -> Any:
    """None where the config has no such field, or one value a layer."""
    try:
        return getattr(config, name, None)
    except Exception:  # transformers' class for a field that differs by layer is private
        return None


def _set(config: Any, name: str, value: Any) -> None:
    try:
        setattr(config, name, value)
    except Exception:  # some configs compute the field from others
        return
