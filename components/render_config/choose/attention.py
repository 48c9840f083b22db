"""Model and rows -> which attention computes packed rows, and whether it needs a mask over the
row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.render_config.cost.activations import EAGER
from components.render_config.decision import Decision
from components.render_config.setting import Setting
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


def choose_attention(setting: Setting, config: Mapping[str, Any]) -> Decision[AttentionChoice]:
    """Raises ModelError where this attention was asked for, and model, machine or precision do not
    allow it."""
    asked, packed = setting.spec.training.attention, setting.rows.packed
    model_type = str(config.get("model_type"))
    known = model_type in known_types().conversations
    own_mask = model_type in EAGER or _has_window(config, setting.rows.longest_tokens)
    _check(setting, model_type, known=known)
    if asked != "auto":
        masked = _is_masked(asked, packed=packed, own_mask=own_mask)
        return Decision(AttentionChoice(asked, masked), f"training.attention is {asked}")
    if not packed:
        return Decision(AttentionChoice(None, own_mask), "a row is one conversation")
    if known:
        reason = "each conversation of a row by itself, without a mask over the row"
        return Decision(AttentionChoice("conversations", own_mask), reason)
    why = f"a {model_type} model does not compute each conversation by itself"
    return Decision(AttentionChoice(None, True), f"{why} ({PAGE})")


def _is_masked(asked: Attention, *, packed: bool, own_mask: bool) -> bool:
    if asked == "conversations":
        return own_mask
    if asked == "sdpa":
        return packed or own_mask
    return asked != "flash_attention_2"


def _check(setting: Setting, model_type: str, *, known: bool) -> None:
    asked = setting.spec.training.attention
    found = f"training.attention: found {asked}"
    if asked == "conversations" and not known:
        raise ModelError(
            f"{found}, which is not known to be right for a {model_type} model ({PAGE}); allowed "
            "are auto and an attn_implementation of transformers. Fix: remove training.attention"
        )
    if asked in _ON_GPUS and not setting.on_gpu:
        raise ModelError(
            f"{found}, which trains on GPUs alone, and hardware.gpu is not set; allowed are auto, "
            "conversations, sdpa and eager. Fix: remove training.attention, or set hardware.gpu"
        )
    if asked == "flash_attention_2" and setting.precision == "fp32":
        raise ModelError(
            f"{found}, which computes in bf16 and fp16, and this plan's precision is fp32; allowed "
            "are auto, conversations, sdpa and eager. Fix: remove training.attention"
        )


def _has_window(config: Mapping[str, Any], row_tokens: int) -> bool:
    """Whether some layer sees less than a row's tokens: its mask is then more than the causal
    one."""
    text = config.get("text_config")
    if isinstance(text, Mapping):
        parts = [config, text]
    else:
        parts = [config]
    return any(_is_windowed(part, row_tokens) for part in parts)


def _is_windowed(part: Mapping[str, Any], row_tokens: int) -> bool:
    if part.get("use_sliding_window") is False:
        return False
    sizes = [part.get(name) for name in _WINDOWS]
    return any(isinstance(size, int) and size < row_tokens for size in sizes)
