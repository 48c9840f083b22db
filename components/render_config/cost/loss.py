"""Setting and micro-batch -> bytes of logits and all that the loss makes of them.

Whole logits take 14 bytes a token and word of the vocabulary in bf16; a chunk of them takes 8,
whatever the row's length (components/train/model/output_layer.py). What it costs is a gradient of
the output layer in fp32 where that is trained.
"""

from components.render_config.setting import Setting

WHOLE_BYTES = {2: 14, 4: 16}
"""Of whole logits, by bytes of a weight: logits, log-probabilities in fp32, the gradients of both,
and in bf16 a cast (transformers 5.23, loss_utils.py; torch, nll_loss and log_softmax)."""
CHUNK_BYTES = {2: 8, 4: 4}
"""Of a chunk's: the layer's output, in fp32, and as a gradient; in fp32 one is written over the
other."""
LOSS_SOURCE = (
    "logits, log-probabilities and their gradients: components/train/model/output_layer.py in "
    "chunks, else transformers loss_utils.py"
)


def at_the_loss(setting: Setting, micro_batch: int) -> int:
    """Bytes of logits and all that is made of them; in chunks also the output layer's input at
    trained tokens with its gradient, and the gradient of a trained output layer in fp32 with its
    copy."""
    architecture, w = setting.architecture, setting.weight_bytes
    words, h = architecture.vocabulary, architecture.hidden_size
    tokens = micro_batch * setting.rows.longest_tokens
    if setting.loss_chunk_tokens is None:
        return WHOLE_BYTES[w] * tokens * words
    chunk = CHUNK_BYTES[w] * min(setting.loss_chunk_tokens, tokens) * words
    if setting.trains_head:
        trained = (4 + w) * words * h
    else:
        trained = 0
    return chunk + 2 * w * tokens * h + trained


def loss_formula(setting: Setting, micro_batch: int) -> str:
    """`at_the_loss` with its numbers filled in."""
    words, h = f"{setting.architecture.vocabulary:,}", f"{setting.architecture.hidden_size:,}"
    row_tokens, size = setting.rows.longest_tokens, setting.weight_bytes
    if setting.loss_chunk_tokens is None:
        return f"{WHOLE_BYTES[size]} B x {micro_batch} x {row_tokens:,} tokens x {words}"
    tokens = micro_batch * row_tokens
    chunk_tokens = min(setting.loss_chunk_tokens, tokens)
    chunk = f"{CHUNK_BYTES[size]} B x {chunk_tokens:,} tokens x {words}"
    formula = f"{chunk} + {2 * size} B x {tokens:,} tokens x {h}"
    if setting.trains_head:
        formula += f" + {4 + size} B x {words} x {h}"
    return formula
