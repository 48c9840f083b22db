"""Model and rows -> whether the output layer works at trained tokens alone, how many at a time.

Whole logits take 14 bytes a token and word of the vocabulary in bf16; a chunk of them takes 8, whatever
the row's length (components/train/model/output_layer.py). What it costs is a gradient of the output layer
in fp32 where that is trained: more than whole logits for short rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.shared.errors import ModelError
from components.shared.model.row_packing import PAGE, known_types

CPU_TOKENS, GPU_TOKENS = 128, 512
"""Tokens of a chunk. Of 128 to 512 on a CPU, 128 was the fastest with a frozen output layer, 512 with a
trained one; a GPU needs more to be busy, which was not measured."""
WHOLE_BYTES = {2: 14, 4: 16}
"""Of whole logits, by bytes of a weight: logits, log-probabilities in fp32, the gradients of both, and in
bf16 a cast (transformers 5.23, loss_utils.py; torch, nll_loss and log_softmax)."""
CHUNK_BYTES = {2: 8, 4: 4}
"""Of a chunk's: the layer's output, in fp32, and as a gradient; in fp32 one is written over the other."""


@dataclass(frozen=True)
class OutputLayerChoice:
    chunk_tokens: int | None
    """None: logits of all tokens at once."""
    reason: str


def choose_output_layer(
    asked: Literal["auto", "trained_tokens", "all_tokens"],
    config: Mapping[str, Any],
    *,
    full: bool,
    on_gpu: bool,
    tokens: int,
    hidden_size: int,
    weight_bytes: int,
    label_smoothing: float = 0.0,
) -> OutputLayerChoice:
    """`tokens`: of a micro-batch, or of one row where the micro-batch is not known yet.

    Raises:
        ModelError: trained tokens are asked of a type whose loss would not be the same, or labels are to
            be smoothed, which the model's own loss cannot.
    """
    model_type = str(config.get("model_type"))
    known = known_types()
    not_alone = known.whole_logits | known.not_measured
    chunk_tokens = GPU_TOKENS if on_gpu else 4 * CPU_TOKENS if full else CPU_TOKENS
    if label_smoothing and (asked == "all_tokens" or model_type in not_alone):
        raise ModelError(_no_smoothing(label_smoothing, model_type, known=model_type not in not_alone))
    if model_type in not_alone:
        why = f"the loss of a {model_type} model was not the same at trained tokens alone ({PAGE})"
        if asked == "trained_tokens":
            raise ModelError(
                f"training.output_layer: found trained_tokens, but {why}; allowed are auto and "
                "all_tokens. Fix: remove training.output_layer"
            )
        return OutputLayerChoice(None, why)
    if asked == "all_tokens":
        return OutputLayerChoice(None, "training.output_layer is all_tokens")
    if asked == "trained_tokens":
        return OutputLayerChoice(chunk_tokens, "training.output_layer is trained_tokens")
    if label_smoothing:
        return OutputLayerChoice(chunk_tokens, "training.label_smoothing needs the logits of trained tokens alone")
    gradient, whole = (4 + weight_bytes) * hidden_size, WHOLE_BYTES[weight_bytes] * tokens
    if full and gradient >= whole:
        return OutputLayerChoice(
            None,
            f"the output layer is trained: its gradient in fp32 would take {gradient:,} bytes a word "
            f"of the vocabulary, the logits of {tokens:,} tokens take {whole:,}",
        )
    return OutputLayerChoice(chunk_tokens, "logits of trained tokens alone, some at a time, take less memory and time")


def _no_smoothing(found: float, model_type: str, *, known: bool) -> str:
    field = f"training.label_smoothing: found {found:g}"
    if known:
        return (
            f"{field} beside training.output_layer: all_tokens, whose loss is the model's own and is never "
            "smoothed; allowed is 0. Fix: remove training.output_layer"
        )
    return (
        f"{field}, but a {model_type} model keeps its own loss, which is never smoothed ({PAGE}); allowed "
        "is 0. Fix: remove training.label_smoothing"
    )
