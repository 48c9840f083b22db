"""What the forward pass keeps for the backward pass, in bytes: read off what autograd saves, held against it in tests.

B rows of a micro-batch, T tokens of a row, N = B x T tokens of a pass; h hidden size, m the MLP's inner size, a = heads x head size,
V vocabulary, w bytes of a number (2 in bf16, 4 in fp32). Attention is torch's scaled_dot_product_attention unless stated.
"""

from dataclasses import dataclass

from components.render_config.choose.output_layer import CHUNK_BYTES, WHOLE_BYTES
from components.render_config.model.shapes import Architecture, Linear

# Types whose attention transformers 5.23 can only compute with the whole matrix of scores (soft-capping, sinks, fp32 scores), and the
# bytes they keep of each score in bf16 and in fp32.
EAGER: dict[str, tuple[int, int]] = {"gemma2": (8, 8), "gpt_neox_japanese": (4, 9), "gpt_oss": (8, 8), "gptj": (8, 8)}
# So many times the MLP's inner size is kept, in bf16 and in fp32, where it is not 4 (gated) or 2: GPT-OSS clamps both halves, GPT-2's
# GELU is written out as a polynomial inside a tanh.
KEPT_INSIDE: dict[str, tuple[int, int]] = {"gpt_oss": (5, 6), "gpt2": (13, 8)}
# Gemma's norms multiply in fp32, and from Gemma 2 on there are four a block.
GEMMA = frozenset({"gemma", "gemma2", "gemma3_text"})
FOUR_NORMS = frozenset({"gemma2", "gemma3_text"})
NORMED_HEADS = frozenset({"qwen3", "qwen3_moe", "gemma3_text"})
ROOTS = "what autograd saves in transformers 5.23's blocks, counted by saved-tensor hooks in tests/truth/test_activations.py"


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of one process."""

    micro_batch: int
    row_tokens: int
    weight_bytes: int
    full: bool
    """Every parameter is trained; otherwise LoRA beside `adapted`."""
    adapted: tuple[Linear, ...]
    experts_adapted: bool
    rank: int
    checkpointing: bool
    fp32_adapters: bool
    """LoRA matrices are fp32 beside bf16 weights, so each casts its input anew (ZeRO-3 leaves them as PEFT made them)."""
    loss_chunk_tokens: int | None = None
    """Tokens whose logits are made at a time; None: of all tokens at once."""
    masked_attention: bool = True
    """Attention reads a mask of the whole row, and keys and values that are repeated for each head."""

    @property
    def tokens(self) -> int:
        return self.micro_batch * self.row_tokens


@dataclass(frozen=True)
class Activations:
    """Bytes on one process."""

    blocks: int
    """Kept over the whole forward pass."""
    block_again: int
    """One block's, computed anew in the backward pass under gradient checkpointing; else 0."""
    backward: int
    """Gradients of one block's activations while it is passed backward."""
    masks: int
    """Who may see whom in packed rows, T² numbers a row: made once as truth values, and by scaled_dot_product_attention anew in each
    block as numbers to add, which its backward pass reads. Eager attention makes the latter once."""
    logits: int
    """At the loss: see `at_the_loss`."""
    expert_weights: int
    """Experts' weights with their update added, which PEFT makes anew in each pass."""


def activations(architecture: Architecture, work: Pass) -> Activations:
    tokens, w = work.tokens, work.weight_bytes
    block = tokens * per_token(architecture, work) + work.micro_batch * scores(architecture, work)
    boundary = tokens * architecture.hidden_size * w
    inner = inner_size(architecture)
    banks = sum(w * each.num_experts * each.num_inputs * each.num_outputs * each.count for each in architecture.experts)
    expert_weights = banks if work.experts_adapted else 0
    return Activations(
        blocks=architecture.num_blocks * (boundary if work.checkpointing else block),
        block_again=block if work.checkpointing else 0,
        backward=tokens * w * (2 * architecture.hidden_size + (3 if architecture.gated else 2) * inner),
        masks=masks(architecture, work),
        logits=at_the_loss(architecture, work),
        expert_weights=expert_weights // architecture.num_blocks if work.checkpointing else expert_weights,
    )


def at_the_loss(architecture: Architecture, work: Pass) -> int:
    """Bytes of logits and all that is made of them; in chunks also the output layer's input at trained
    tokens with its gradient, and the gradient of a trained output layer in fp32 with its copy."""
    words, h, w = architecture.vocabulary, architecture.hidden_size, work.weight_bytes
    if work.loss_chunk_tokens is None:
        return WHOLE_BYTES[w] * work.tokens * words
    chunk = CHUNK_BYTES[w] * min(work.loss_chunk_tokens, work.tokens) * words
    trained = (4 + w) * words * h if work.full else 0
    return chunk + 2 * w * work.tokens * h + trained


def per_token(architecture: Architecture, work: Pass) -> int:
    """Bytes that one block keeps for one token."""
    return _norms(architecture, work) + _attention(architecture, work) + _mlp(architecture, work) + _lora(architecture, work)


def scores(architecture: Architecture, work: Pass) -> int:
    """Bytes that one block keeps of one row's attention matrix: nothing but its log-sum-exp, unless attention is eager."""
    in_bf16, in_fp32 = EAGER.get(architecture.model_type, (0, 0))
    return architecture.attention.num_heads * work.row_tokens**2 * (in_bf16 if work.weight_bytes == 2 else in_fp32)


def masks(architecture: Architecture, work: Pass) -> int:
    """Bytes of all masks of a pass; a block that has no attention has none."""
    if not work.masked_attention:
        return 0
    blocks = max((each.count for each in architecture.linears if each.role == "attention"), default=0)
    held = min(blocks, 1) if work.checkpointing or architecture.model_type in EAGER else blocks
    return work.micro_batch * work.row_tokens**2 * (min(blocks, 1) + held * work.weight_bytes)


def inner_size(architecture: Architecture) -> int:
    """Width of what stands between the two projections of an MLP, for one token: over all experts that it passes."""
    wide = [each.num_inputs for each in architecture.linears if each.role == "mlp" and each.num_outputs == architecture.hidden_size]
    dense = max(wide, default=0)
    if not architecture.experts:
        return dense or 4 * architecture.hidden_size
    expert = min(each.num_inputs * each.num_outputs for each in architecture.experts) // architecture.hidden_size
    return dense + architecture.num_active_experts * expert


def _norms(architecture: Architecture, work: Pass) -> int:
    """The norms of a block: each keeps its input, and its output where something trained reads it. RMS norms as transformers writes
    them work in fp32 and, when their weight is trained, keep the normalised input too."""
    h, w = architecture.hidden_size, work.weight_bytes
    if not architecture.gated:
        return 2 * (w * h + w * h)
    num_norms = 4 if architecture.model_type in FOUR_NORMS else 2
    outputs = 2 * w * h  # those that linear layers read
    return num_norms * _rms_norm(architecture, work, h) + outputs


def _rms_norm(architecture: Architecture, work: Pass, size: int) -> int:
    """What an RMS norm over `size` numbers keeps beside its output."""
    w = work.weight_bytes
    trained = 0 if not work.full else 4 * size if architecture.model_type in GEMMA else w * size
    return 4 * size + trained


def _attention(architecture: Architecture, work: Pass) -> int:
    """Queries, keys and values after rotation, keys and values repeated for each head where a mask asks for it; the output, and its
    contiguous copy that the output projection reads; a log-sum-exp a head. Norms of heads; where one layer gives queries, keys and
    values, a view of the values holds the whole of it."""
    shape, w = architecture.attention, work.weight_bytes
    a, k = shape.num_heads * shape.head_size, shape.num_key_heads * shape.head_size
    fused = any("query_key_value" in each.path or "qkv" in each.path for each in architecture.linears)
    held = w * (a + k) if fused and a == k else 0
    heads = _rms_norm(architecture, work, a + k) if architecture.model_type in NORMED_HEADS else 0
    keys_and_values = 2 * a if work.masked_attention else 2 * k
    return w * (3 * a + keys_and_values) + 4 * shape.num_heads + held + heads


def _mlp(architecture: Architecture, work: Pass) -> int:
    """Gated: gate, its activation, up, their product. Otherwise: the activation's input and output."""
    m, w = inner_size(architecture), work.weight_bytes
    routed = architecture.num_active_experts * 2 * architecture.hidden_size * w
    usual = 4 if architecture.gated else 2
    in_bf16, in_fp32 = KEPT_INSIDE.get(architecture.model_type, (usual, usual))
    return w * (in_bf16 if w == 2 else in_fp32) * m + routed


def _lora(architecture: Architecture, work: Pass) -> int:
    """The narrow output of each A; with fp32 matrices beside bf16 weights also an fp32 copy of each layer's input."""
    if work.full:
        return 0
    per_block = [each for each in work.adapted if each.count >= architecture.num_blocks / 2]
    size = 4 if work.fp32_adapters else work.weight_bytes
    cast = sum(4 * each.num_inputs for each in per_block) if work.fp32_adapters and work.weight_bytes == 2 else 0
    return len(per_block) * work.rank * size + cast
