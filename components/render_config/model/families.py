"""config.json -> shapes, by arithmetic, for the model types that most runs use: no torch, a tenth
of a millisecond.

Each follows transformers 5.23's models/<model type>/modeling_*.py and is compared with the real
model on torch's meta device in tests/unit/render_config. Every other type is built and walked
(architectures.py).
"""

from collections.abc import Callable, Mapping
from typing import Any

from components.render_config.model.shapes import Architecture, Attention, Experts, Linear

Config = Mapping[str, Any]

# What transformers 5.23 takes for a field that an older config.json lacks (models/<model
# type>/configuration_*.py).
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 256, "num_key_value_heads": 16},
    "gemma2": {"head_dim": 256, "num_key_value_heads": 4},
    "gemma3_text": {"head_dim": 256, "num_key_value_heads": 4},
    "gpt_oss": {"head_dim": 64, "num_key_value_heads": 8},
    "mistral": {"num_key_value_heads": 8},
    "mixtral": {"num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"head_dim": 128, "num_key_value_heads": 32},
    "qwen3_moe": {"num_key_value_heads": 4},
}

# Field -> the name that transformers 5.23 writes it under (attribute_map of models/<model
# type>/configuration_*.py). Both are read: transformers 4 saved Qwen3-MoE with num_experts,
# transformers 5 saves it with num_local_experts.
_EXPERTS = {"num_experts": "num_local_experts"}
SPELLINGS: dict[str, dict[str, str]] = {
    "gpt2": {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    "gpt_oss": _EXPERTS,
    "mixtral": _EXPERTS,
    "qwen3_moe": _EXPERTS,
}


def canonical(config: Config) -> Config:
    """The same config with each field under the name that transformers 5.23 writes."""
    spellings = SPELLINGS.get(config["model_type"], {})
    written = {name: value for name, value in config.items() if name not in spellings}
    for other, name in spellings.items():
        if other in config and name not in written:
            written[name] = config[other]
    return written


class _Model:
    """Shapes in the making. `extra` are a block's parameters beside its linear layers and experts:
    norms and biases."""

    def __init__(self, config: Config, *, tied: bool, gated: bool) -> None:
        config = {**DEFAULTS.get(config["model_type"], {}), **config}
        self.config = config
        self.hidden: int = config["hidden_size"]
        self.blocks: int = config["num_hidden_layers"]
        heads: int = config["num_attention_heads"]
        self.attention = Attention(
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or self.hidden // heads,
        )
        self.tied = bool(config.get("tie_word_embeddings", tied))
        self.gated = gated
        self.linears: list[Linear] = []
        self.experts: list[Experts] = []
        self.extra = 0
        """Parameters of all blocks that are neither linear layers nor experts."""

    @property
    def queries(self) -> int:
        return self.attention.num_heads * self.attention.head_size

    @property
    def keys(self) -> int:
        return self.attention.num_key_heads * self.attention.head_size

    def add(self, path: str, inputs: int, outputs: int, *, conv1d: bool = False) -> None:
        if path.startswith(("self_attn", "attention", "attn")):
            role = "attention"
        else:
            role = "mlp"
        self.linears.append(Linear(path, inputs, outputs, self.blocks, role, conv1d))

    def add_llama_attention(
        self, *, qkv_bias: bool = False, out_bias: bool = False, qk_norm: bool = False
    ) -> None:
        """q, k, v, o; `qk_norm` is one norm over a head for queries and one for keys."""
        self.add("self_attn.q_proj", self.hidden, self.queries)
        self.add("self_attn.k_proj", self.hidden, self.keys)
        self.add("self_attn.v_proj", self.hidden, self.keys)
        self.add("self_attn.o_proj", self.queries, self.hidden)
        biases = qkv_bias * (self.queries + 2 * self.keys) + out_bias * self.hidden
        self.extra += self.blocks * (biases + qk_norm * 2 * self.attention.head_size)

    def add_gated_mlp(self, *, bias: bool = False) -> None:
        inner = self.config["intermediate_size"]
        for name in ("gate_proj", "up_proj"):
            self.add(f"mlp.{name}", self.hidden, inner)
        self.add("mlp.down_proj", inner, self.hidden)
        self.extra += bias * self.blocks * (2 * inner + self.hidden)

    def add_experts(
        self,
        num_experts: int,
        inner: int,
        *,
        count: int,
        bias: bool = False,
        transposed: bool = False,
    ) -> None:
        """Two 3-D parameters and a router. Most types store an expert's matrix (outputs, inputs),
        GPT-OSS the other way round."""
        up, down = (2 * inner, self.hidden), (self.hidden, inner)
        for path, (one, other) in (
            ("mlp.experts.gate_up_proj", up),
            ("mlp.experts.down_proj", down),
        ):
            self.experts.append(
                Experts(path, num_experts, *((other, one) if transposed else (one, other)), count)
            )
        router = num_experts * (self.hidden + bias)
        self.extra += count * (router + bias * num_experts * (2 * inner + self.hidden))

    def add_norms(self, per_block: int) -> None:
        """This many norms of `hidden` numbers a block."""
        self.extra += self.blocks * per_block * self.hidden

    def finish(
        self, *, last_norm: int, positions: int = 0, largest_block: int | None = None
    ) -> Architecture:
        """`largest_block` where the blocks are not all alike."""
        embedding = self.config["vocab_size"] * self.hidden
        outside = embedding * (1 if self.tied else 2) + positions + last_norm
        weights = [each.num_inputs * each.num_outputs for each in self.linears]
        banks = [each.num_experts * each.num_inputs * each.num_outputs for each in self.experts]
        blocks = self.extra + sum(
            size * each.count for size, each in zip(weights, self.linears, strict=True)
        )
        blocks += sum(size * each.count for size, each in zip(banks, self.experts, strict=True))
        return Architecture(
            model_type=str(self.config["model_type"]),
            num_blocks=self.blocks,
            hidden_size=self.hidden,
            vocabulary=self.config["vocab_size"],
            attention=self.attention,
            linears=tuple(self.linears),
            experts=tuple(self.experts),
            num_active_experts=int(self.config.get("num_experts_per_tok", 1))
            if self.experts
            else 0,
            gated=self.gated,
            num_parameters=outside + blocks,
            largest_layer_parameters=max(embedding, positions, *weights, *banks),
            largest_block_parameters=blocks // self.blocks
            if largest_block is None
            else largest_block,
            outside_parameters=outside,
            embedding_size=self.hidden,
            tied=self.tied,
            avoid=("lm_head",),
        )


def _llama_like(
    config: Config, *, qkv_bias: bool, out_bias: bool, mlp_bias: bool, qk_norm: bool
) -> Architecture:
    model = _Model(config, tied=False, gated=True)
    model.add_llama_attention(qkv_bias=qkv_bias, out_bias=out_bias, qk_norm=qk_norm)
    model.add_gated_mlp(bias=mlp_bias)
    model.add_norms(2)
    return model.finish(last_norm=model.hidden)


def _llama(config: Config) -> Architecture:
    bias = bool(config.get("attention_bias", False))
    return _llama_like(
        config,
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bool(config.get("mlp_bias", False)),
        qk_norm=False,
    )


def _mistral(config: Config) -> Architecture:
    return _llama_like(config, qkv_bias=False, out_bias=False, mlp_bias=False, qk_norm=False)


def _qwen2(config: Config) -> Architecture:
    return _llama_like(config, qkv_bias=True, out_bias=False, mlp_bias=False, qk_norm=False)


def _qwen3(config: Config) -> Architecture:
    bias = bool(config.get("attention_bias", False))
    return _llama_like(config, qkv_bias=bias, out_bias=bias, mlp_bias=False, qk_norm=True)


def _gemma(config: Config) -> Architecture:
    return _gemma_like(config, norms=2, qk_norm=False)


def _gemma2(config: Config) -> Architecture:
    return _gemma_like(config, norms=4, qk_norm=False)


def _gemma3(config: Config) -> Architecture:
    return _gemma_like(config, norms=4, qk_norm=True)


def _gemma_like(config: Config, *, norms: int, qk_norm: bool) -> Architecture:
    model = _Model(config, tied=True, gated=True)
    bias = bool(config.get("attention_bias", False))
    model.add_llama_attention(qkv_bias=bias, out_bias=bias, qk_norm=qk_norm)
    model.add_gated_mlp()
    model.add_norms(norms)
    return model.finish(last_norm=model.hidden)


def _phi3(config: Config) -> Architecture:
    """One fused projection for queries, keys and values, one for gate and up."""
    model, inner = _Model(config, tied=False, gated=True), config["intermediate_size"]
    model.add("self_attn.o_proj", model.queries, model.hidden)
    model.add("self_attn.qkv_proj", model.hidden, model.queries + 2 * model.keys)
    model.add("mlp.gate_up_proj", model.hidden, 2 * inner)
    model.add("mlp.down_proj", inner, model.hidden)
    model.add_norms(2)
    return model.finish(last_norm=model.hidden)


def _gpt_neox(config: Config) -> Architecture:
    """One fused query_key_value, dense, two MLP layers; biases everywhere, two layer norms with
    bias a block."""
    model = _neox_layers(config, config["intermediate_size"])
    hidden = model.hidden
    if config.get("attention_bias", True):
        attention_bias = 4 * hidden
    else:
        attention_bias = 0
    model.extra += model.blocks * (
        attention_bias + config["intermediate_size"] + hidden + 4 * hidden
    )
    return model.finish(last_norm=2 * hidden)


def _gpt_neox_japanese(config: Config) -> Architecture:
    """No biases but one: the last block's attention has it for its `dense`."""
    model = _neox_layers(
        config, int(config["hidden_size"] * config.get("intermediate_multiple_size", 4))
    )
    hidden = model.hidden
    matrices = sum(each.num_inputs * each.num_outputs for each in model.linears)
    model.extra += model.blocks * 4 * hidden + hidden
    finished = model.finish(last_norm=2 * hidden, largest_block=matrices + 5 * hidden)
    return Architecture(**{**vars(finished), "avoid": ("embed_out",)})


def _neox_layers(config: Config, inner: int) -> _Model:
    config = {
        **config,
        "num_key_value_heads": None,
    }  # not among this type's fields, whatever a config.json says
    model = _Model(config, tied=config["model_type"] == "gpt_neox_japanese", gated=False)
    model.add("attention.query_key_value", model.hidden, 3 * model.hidden)
    model.add("attention.dense", model.hidden, model.hidden)
    model.add("mlp.dense_h_to_4h", model.hidden, inner)
    model.add("mlp.dense_4h_to_h", inner, model.hidden)
    return model


def _gpt2(config: Config) -> Architecture:
    """Conv1D instead of Linear, learned positions, head tied to the embedding."""
    hidden, heads = config["n_embd"], config["n_head"]
    names = {
        "hidden_size": hidden,
        "num_hidden_layers": config["n_layer"],
        "num_attention_heads": heads,
    }
    model, inner = (
        _Model({**config, **names}, tied=True, gated=False),
        config.get("n_inner") or 4 * hidden,
    )
    model.add("attn.c_attn", hidden, 3 * hidden, conv1d=True)
    model.add("attn.c_proj", hidden, hidden, conv1d=True)
    model.add("mlp.c_fc", hidden, inner, conv1d=True)
    model.add("mlp.c_proj", inner, hidden, conv1d=True)
    model.extra += model.blocks * (4 * hidden + inner + hidden + 4 * hidden)
    return model.finish(last_norm=2 * hidden, positions=config.get("n_positions", 1024) * hidden)


def _mixtral(config: Config) -> Architecture:
    model = _Model(config, tied=False, gated=True)
    model.add_llama_attention()
    model.add_experts(
        config.get("num_local_experts", 8), config["intermediate_size"], count=model.blocks
    )
    model.add_norms(2)
    return model.finish(last_norm=model.hidden)


def _qwen3_moe(config: Config) -> Architecture:
    """A block has experts unless `mlp_only_layers` or `decoder_sparse_step` says otherwise."""
    model = _Model(config, tied=False, gated=True)
    bias = bool(config.get("attention_bias", False))
    model.add_llama_attention(qkv_bias=bias, out_bias=bias, qk_norm=True)
    only_mlp, step = config.get("mlp_only_layers") or [], config.get("decoder_sparse_step", 1)
    num_experts = config.get("num_local_experts", 128)
    sparse = sum(
        index not in only_mlp and num_experts > 0 and (index + 1) % step == 0
        for index in range(model.blocks)
    )
    if sparse < model.blocks:
        plain = 3 * model.hidden * config["intermediate_size"]
    else:
        plain = 0
    model.extra += (model.blocks - sparse) * plain
    if sparse:
        model.add_experts(num_experts, config["moe_intermediate_size"], count=sparse)
    model.add_norms(2)
    if sparse in (0, model.blocks):
        return model.finish(last_norm=model.hidden)
    # PEFT cannot reach the plain MLPs of a model with experts: see components/train/model/walk.py,
    # is_target.
    common = sum(each.num_inputs * each.num_outputs for each in model.linears)
    banks = (
        sum(each.num_experts * each.num_inputs * each.num_outputs for each in model.experts)
        + num_experts * model.hidden
    )
    small = (
        model.extra - sparse * num_experts * model.hidden - (model.blocks - sparse) * plain
    ) // model.blocks
    finished = model.finish(
        last_norm=model.hidden, largest_block=common + max(plain, banks) + small
    )
    names = ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj")
    return Architecture(**{**vars(finished), "avoid": ("lm_head", *names), "unreachable": names})


def _gpt_oss(config: Config) -> Architecture:
    """Biases on attention, experts and router; one learned sink a head."""
    model = _Model(config, tied=False, gated=True)
    bias = bool(config.get("attention_bias", True))
    model.add_llama_attention(qkv_bias=bias, out_bias=bias)
    model.add_experts(
        config.get("num_local_experts", 128),
        config["intermediate_size"],
        count=model.blocks,
        bias=True,
        transposed=True,
    )
    model.extra += model.blocks * model.attention.num_heads
    model.add_norms(2)
    return model.finish(last_norm=model.hidden)


# Each takes a config as `canonical` gives it.
FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "gpt_neox_japanese": _gpt_neox_japanese,
    "gpt_oss": _gpt_oss,
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
}
