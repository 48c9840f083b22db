"""config.json -> how many positions the model knows."""

from collections.abc import Mapping
from typing import Any

_NAMES = ("n_positions", "max_position_embeddings")
"""GPT-2 and its kind have the first; transformers maps the second to it."""
_SCALED = ("linear", "dynamic", "yarn")
"""RoPE types that multiply the positions a model was first trained with by `factor`
(transformers 5.23, modeling_rope_utils.py). The others say the whole length already."""


def known_positions(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """(the fields of config.json that say it, the number); None where the model states no limit.

    Of a model of text and images, what its text part says.
    """
    text = config.get("text_config")
    part: Mapping[str, Any] = text if isinstance(text, Mapping) else config
    for name in _NAMES:
        limit = part.get(name)
        if isinstance(limit, int):
            return _scaled(part, name, limit)
    return None


def _scaled(config: Mapping[str, Any], name: str, limit: int) -> tuple[str, int]:
    """YaRN and its kind: factor x the original length, where that is more than the field itself."""
    for field in ("rope_scaling", "rope_parameters"):
        rope = config.get(field)
        if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type")) not in _SCALED:
            continue
        first, factor = _original(rope, limit), rope.get("factor")
        if isinstance(first, int) and isinstance(factor, int | float) and first * factor > limit:
            return f"{name} with {field}", int(first * factor)
    return name, limit


def _original(rope: Mapping[str, Any], limit: int) -> Any:
    """The positions before scaling. `linear` without them may stand beside the whole length already
    (Gemma 3: 131,072 positions, factor 8), so nothing is multiplied there."""
    given = rope.get("original_max_position_embeddings")
    is_linear = rope.get("rope_type", rope.get("type")) == "linear"
    return given or (None if is_linear else limit)
