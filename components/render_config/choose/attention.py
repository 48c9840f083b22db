"""Model and rows -> which attention computes packed rows, and whether it needs a mask over the
row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.render_config.cost.activations import EAGER
from components.shared.documents.plan import Precision
from components.shared.errors import ModelError
from components.shared.model.row_packing import PAGE, known_types
from components.shared.spec.training import Attention

_ON_GPUS: tuple[Attention, ...] = ("flash_attention_2", "flex_attention")
_WINDOWS = ("sliding_window", "attention_chunk_size")
"""Fields of config.json that limit how many tokens back a token sees."""


@dataclass(frozen=True)
class AttentionChoice:
    implementation: Attention | None
    """None: what the model takes by itself."""
    masked: bool
    """It reads a mask of the whole row, or makes all scores of one."""
    reason: str


def choose_attention(
    asked: Attention,
    config: Mapping[str, Any],
    *,
    packed: bool,
    on_gpu: bool,
    row_tokens: int,
    precision: Precision,
) -> AttentionChoice:
    """`packed`: a row holds several conversations.

    Raises:
        ModelError: this attention was asked for, and model, machine or precision do not allow it.
    """
    model_type = str(config.get("model_type"))
    known = model_type in known_types().conversations
    own_mask = model_type in EAGER or _has_window(config, row_tokens)
    _check(asked, model_type, known=known, on_gpu=on_gpu, precision=precision)
    if asked == "conversations":
        return AttentionChoice(asked, own_mask, "training.attention is conversations")
    if asked != "auto":
        unmasked = asked == "flash_attention_2" or (asked == "sdpa" and not packed and not own_mask)
        return AttentionChoice(asked, not unmasked, f"training.attention is {asked}")
    if not packed:
        return AttentionChoice(None, own_mask, "a row is one conversation")
    if known:
        reason = "each conversation of a row by itself, without a mask over the row"
        return AttentionChoice("conversations", own_mask, reason)
    why = f"a {model_type} model does not compute each conversation by itself"
    return AttentionChoice(None, True, f"{why} ({PAGE})")


def _check(
    asked: Attention, model_type: str, *, known: bool, on_gpu: bool, precision: Precision
) -> None:
    found = f"training.attention: found {asked}"
    if asked == "conversations" and not known:
        raise ModelError(
            f"{found}, which is not known to be right for a {model_type} model ({PAGE}); allowed "
            "are auto and an attn_implementation of transformers. Fix: remove training.attention"
        )
    if asked in _ON_GPUS and not on_gpu:
        raise ModelError(
            f"{found}, which trains on GPUs alone, and hardware.gpu is not set; allowed are auto, "
            "conversations, sdpa and eager. Fix: remove training.attention, or set hardware.gpu"
        )
    if asked == "flash_attention_2" and precision == "fp32":
        raise ModelError(
            f"{found}, which computes in bf16 and fp16, and this plan's precision is fp32; allowed "
            "are auto, conversations, sdpa and eager. Fix: remove training.attention"
        )


def _has_window(config: Mapping[str, Any], row_tokens: int) -> bool:
    """Whether some layer sees less than a row's tokens: its mask is then more than the causal
    one."""
    text = config.get("text_config")
    parts = [config, text] if isinstance(text, Mapping) else [config]
    return any(
        isinstance(size := part.get(name), int)
        and size < row_tokens
        and part.get("use_sliding_window") is not False
        for part in parts
        for name in _WINDOWS
    )
