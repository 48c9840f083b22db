"""config.json -> how many positions the model knows."""

from collections.abc import Mapping
from typing import Any

_NAMES = ("n_positions", "max_position_embeddings")
"""GPT-2 and its kind have the first; transformers maps the second to it."""


def known_positions(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """(the field of config.json, its value); None where the model states no limit."""
    for name in _NAMES:
        limit = config.get(name)
        if isinstance(limit, int):
            return name, limit
    return None
