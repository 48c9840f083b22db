"""What the forward pass keeps for the backward pass, in bytes: read off what autograd saves, held
against it in tests.

B rows of a micro-batch, T tokens of a row, N = B x T tokens of a pass; h hidden size, m the MLP's
inner size, a = heads x head size, V vocabulary, w bytes of a number (2 in bf16, 4 in fp32).
Attention is torch's scaled_dot_product_attention unless stated.
"""

from dataclasses import dataclass

from components.render_config.cost.loss import at_the_loss
from components.render_config.model.shapes import Architecture
from components.render_config.setting import Setting
from components.shared.documents.plan import ZeroPlan

# Types whose attention transformers 5.23 can only compute with the whole matrix of scores
# (soft-capping, sinks, fp32 scores), and the bytes they keep of each score in bf16 and in fp32.
EAGER: dict[str, tuple[int, int]] = {
    "gemma2": (8, 8),
    "gpt_neox_japanese": (4, 9),
    "gpt_oss": (8, 8),
    "gptj": (8, 8),
}
# This many times the MLP's inner size is kept, in bf16 and in fp32, where it is not 4 (gated) or 2:
# GPT-OSS clamps both halves, GPT-2's GELU is written out as a polynomial inside a tanh.
KEPT_INSIDE: dict[str, tuple[int, int]] = {"gpt_oss": (5, 6), "gpt2": (13, 8)}
# Gemma's norms multiply in fp32, and from Gemma 2 on there are four a block.
GEMMA = frozenset({"gemma", "gemma2", "gemma3_text"})
FOUR_NORMS = frozenset({"gemma2", "gemma3_text"})
NORMED_HEADS = frozenset({"qwen3", "qwen3_moe", "gemma3_text"})
ROOTS = (
    "what autograd saves in transformers 5.23's blocks, counted by saved-tensor hooks in "
    "tests/truth/test_activations.py"
)


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
    """Who may see whom in packed rows, T² numbers a row: made once as truth values, and by
    scaled_dot_product_attention anew in each block as numbers to add, which its backward pass
    reads. Eager attention makes the latter once."""
    logits: int
    """At the loss: see `at_the_loss`."""
    expert_weights: int
    """Experts' weights with their update added, which PEFT makes anew in each pass."""


def activations(setting: Setting, zero: ZeroPlan, micro_batch: int) -> Activations:
    """Of one forward and backward pass of one process."""
    architecture, w = setting.architecture, setting.weight_bytes
    h, num_blocks = architecture.hidden_size, architecture.num_blocks
    tokens = micro_batch * setting.rows.longest_tokens
    block = tokens * per_token(setting, zero) + micro_batch * scores(setting)
    kept, again, expert_weights = block, 0, _expert_weights(setting)
    if setting.checkpointing:
        kept, again, expert_weights = tokens * h * w, block, expert_weights // num_blocks
    if architecture.gated:
        num_products = 3
    else:
        num_products = 2
    return Activations(
        blocks=num_blocks * kept,
        block_again=again,
        backward=tokens * w * (2 * h + num_products * inner_size(architecture)),
        masks=masks(setting, micro_batch),
        logits=at_the_loss(setting, micro_batch),
        expert_weights=expert_weights,
    )


def _expert_weights(setting: Setting) -> int:
    """Bytes of all experts' weights, where LoRA trains them."""
    if not setting.experts_adapted:
        return 0
    return sum(
        setting.weight_bytes * each.num_experts * each.num_inputs * each.num_outputs * each.count
        for each in setting.architecture.experts
    )


def per_token(setting: Setting, zero: ZeroPlan) -> int:
    """Bytes that one block keeps for one token."""
    return _norms(setting) + _attention(setting) + _mlp(setting) + _lora(setting, zero)


def scores(setting: Setting) -> int:
    """Bytes that one block keeps of one row's attention matrix: nothing but its log-sum-exp, unless
    attention is eager."""
    architecture = setting.architecture
    in_bf16, in_fp32 = EAGER.get(architecture.model_type, (0, 0))
    if setting.weight_bytes == 2:
        of_score = in_bf16
    else:
        of_score = in_fp32
    return architecture.attention.num_heads * setting.rows.longest_tokens**2 * of_score


def masks(setting: Setting, micro_batch: int) -> int:
    """Bytes of all masks of a pass; a block that has no attention has none."""
    if not setting.masked_attention:
        return 0
    architecture = setting.architecture
    counts = [each.count for each in architecture.linears if each.role == "attention"]
    blocks = max(counts, default=0)
    one = min(blocks, 1)
    made_once = setting.checkpointing or architecture.model_type in EAGER
    if made_once:
        held = one
    else:
        held = blocks
    row = setting.rows.longest_tokens**2 * (one + held * setting.weight_bytes)
    return micro_batch * row


def inner_size(architecture: Architecture) -> int:
    """Width of what stands between the two projections of an MLP, for one token: over all experts
    that it passes."""
    wide = [
        each.num_inputs
        for each in architecture.linears
        if each.role == "mlp" and each.num_outputs == architecture.hidden_size
    ]
    dense = max(wide, default=0)
    if not architecture.experts:
        return dense or 4 * architecture.hidden_size
    expert = (
        min(each.num_inputs * each.num_outputs for each in architecture.experts)
        // architecture.hidden_size
    )
    return dense + architecture.num_active_experts * expert


def _norms(setting: Setting) -> int:
    """The norms of a block: each keeps its input, and its output where something trained reads it.
    RMS norms as transformers writes them work in fp32 and, when their weight is trained, keep the
    normalised input too."""
    architecture = setting.architecture
    h, w = architecture.hidden_size, setting.weight_bytes
    if not architecture.gated:
        return 2 * (w * h + w * h)
    if architecture.model_type in FOUR_NORMS:
        num_norms = 4
    else:
        num_norms = 2
    outputs = 2 * w * h  # those that linear layers read
    return num_norms * _rms_norm(setting, h) + outputs


def _rms_norm(setting: Setting, size: int) -> int:
    """What an RMS norm over `size` numbers keeps beside its output."""
    if not setting.full:
        return 4 * size
    if setting.architecture.model_type in GEMMA:
        of_input = 4
    else:
        of_input = setting.weight_bytes
    return 4 * size + of_input * size


def _attention(setting: Setting) -> int:
    """Queries, keys and values after rotation, keys and values repeated for each head where a mask
    asks for it; the output, and its contiguous copy that the output projection reads; a log-sum-exp
    a head. Norms of heads; where one layer gives queries, keys and values, a view of the values
    holds the whole of it."""
    architecture, w = setting.architecture, setting.weight_bytes
    shape = architecture.attention
    a, k = shape.num_heads * shape.head_size, shape.num_key_heads * shape.head_size
    if setting.masked_attention:
        keys_and_values = 2 * a
    else:
        keys_and_values = 2 * k
    kept = w * (3 * a + keys_and_values) + 4 * shape.num_heads
    if _is_fused(architecture) and a == k:
        kept += w * (a + k)
    if architecture.model_type in NORMED_HEADS:
        kept += _rms_norm(setting, a + k)
    return kept


def _is_fused(architecture: Architecture) -> bool:
    """One layer gives queries, keys and values."""
    paths = [each.path for each in architecture.linears]
    return any("query_key_value" in path or "qkv" in path for path in paths)


def _mlp(setting: Setting) -> int:
    """Gated: gate, its activation, up, their product. Otherwise: the activation's input and
    output."""
    architecture, w = setting.architecture, setting.weight_bytes
    m = inner_size(architecture)
    routed = architecture.num_active_experts * 2 * architecture.hidden_size * w
    if architecture.gated:
        usual = 4
    else:
        usual = 2
    in_bf16, in_fp32 = KEPT_INSIDE.get(architecture.model_type, (usual, usual))
    return w * (in_bf16 if w == 2 else in_fp32) * m + routed


def _lora(setting: Setting, zero: ZeroPlan) -> int:
    """The narrow output of each A. ZeRO-3 leaves the matrices in fp32, as PEFT made them: beside
    bf16 weights each then casts its input anew, which keeps an fp32 copy of it."""
    if setting.full:
        return 0
    fewest = setting.architecture.num_blocks / 2
    per_block = [each for each in setting.adapted if each.count >= fewest]
    size, cast = setting.matrix_bytes(zero), 0
    if size > setting.weight_bytes:
        cast = sum(4 * each.num_inputs for each in per_block)
    if setting.spec.lora.dora:  # the base's product and the matrices', for the lengths' gradient
        cast += sum((setting.weight_bytes + size) * each.num_outputs for each in per_block)
    return len(per_block) * setting.spec.lora.rank * size + cast
