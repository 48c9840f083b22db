"""Model and rows -> whether the output layer works at trained tokens alone, how many at a time.

What that saves and costs in memory is in cost/loss.py. For short rows in full training, a gradient
of the output layer in fp32 takes more than whole logits.
"""

from collections.abc import Mapping
from typing import Any

from components.render_config.cost.loss import WHOLE_BYTES
from components.render_config.decision import Decision
from components.render_config.setting import Setting
from components.shared.errors import ModelError
from components.shared.model.row_packing import PAGE, known_types

CPU_TOKENS, GPU_TOKENS = 128, 512
"""Tokens of a chunk. Of 128 to 512 on a CPU, 128 was the fastest with a frozen output layer, 512
with a trained one; a GPU needs more to be busy, which was not measured."""


def choose_output_layer(setting: Setting, config: Mapping[str, Any]) -> Decision[int | None]:
    """Trained tokens whose logits are made at a time; None: logits of all tokens at once.

    Raises:
        ModelError: trained tokens are asked of a type whose loss would not be the same, or labels
            are to be smoothed, which the model's own loss cannot.
    """
    training, model_type = setting.spec.training, str(config.get("model_type"))
    asked, smoothing = training.output_layer, training.label_smoothing
    known = known_types()
    keeps_own_loss = model_type in known.whole_logits | known.not_measured
    if smoothing and (asked == "all_tokens" or keeps_own_loss):
        raise ModelError(_no_smoothing(smoothing, model_type, known=not keeps_own_loss))
    if keeps_own_loss:
        return _whole_logits(asked, model_type)
    if asked == "all_tokens":
        return Decision(None, "training.output_layer is all_tokens")
    chunk_tokens = _chunk_tokens(setting)
    if asked == "trained_tokens":
        return Decision(chunk_tokens, "training.output_layer is trained_tokens")
    if smoothing:
        why = "training.label_smoothing needs the logits of trained tokens alone"
        return Decision(chunk_tokens, why)
    return _smaller(setting, chunk_tokens)


def _smaller(setting: Setting, chunk_tokens: int) -> Decision[int | None]:
    """Whole logits where a trained output layer's gradient takes no less than they do. They are
    those of one row where the micro-batch is not known yet."""
    w = setting.weight_bytes
    tokens = setting.rows.longest_tokens * setting.least_micro_batch
    gradient, whole = (4 + w) * setting.architecture.hidden_size, WHOLE_BYTES[w] * tokens
    if setting.trains_head and gradient >= whole:
        return Decision(
            None,
            f"the output layer is trained: its gradient in fp32 would take {gradient:,} bytes a "
            f"word of the vocabulary, the logits of {tokens:,} tokens take {whole:,}",
        )
    return Decision(
        chunk_tokens, "logits of trained tokens alone, some at a time, take less memory and time"
    )


def _chunk_tokens(setting: Setting) -> int:
    if setting.on_gpu:
        return GPU_TOKENS
    if setting.trains_head:
        return 4 * CPU_TOKENS
    return CPU_TOKENS


def _whole_logits(asked: str, model_type: str) -> Decision[int | None]:
    why = f"the loss of a {model_type} model was not the same at trained tokens alone ({PAGE})"
    if asked == "trained_tokens":
        raise ModelError(
            f"training.output_layer: found trained_tokens, but {why}; allowed are auto and "
            "all_tokens. Fix: remove training.output_layer"
        )
    return Decision(None, why)


def _no_smoothing(found: float, model_type: str, *, known: bool) -> str:
    field = f"training.label_smoothing: found {found:g}"
    if known:
        return (
            f"{field} beside training.output_layer: all_tokens, whose loss is the model's own and "
            "is never smoothed; allowed is 0. Fix: remove training.output_layer"
        )
    return (
        f"{field}, but a {model_type} model keeps its own loss, which is never smoothed ({PAGE}); "
        "allowed is 0. Fix: remove training.label_smoothing"
    )
