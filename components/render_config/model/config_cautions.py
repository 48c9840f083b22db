"""A config.json that can be planned -> what in it training does not follow, one line each."""

from collections.abc import Iterator, Mapping
from typing import Any

from components.shared.model.config_fields import fields_of_types, unread_fields
from components.shared.printable import cut, shown

Config = Mapping[str, Any]

MOST_NAMES = 6
"""Names in a line; the rest is counted."""
WHOLE = ("CausalLM", "LMHead", "ConditionalGeneration", "ForGeneration")
"""Parts of class names that transformers gives models with an output layer."""


def config_cautions(config: Config) -> Iterator[str]:
    """Fields that are not read, code that is not run, weights that may be missing, parts that stay
    as they are."""
    yield from _unread(config)
    yield from _own_code(config)
    yield from _saved_without_head(config)
    yield from _other_parts(config)


def _unread(config: Config) -> Iterator[str]:
    names = unread_fields(config)
    if names:
        version, model_type = fields_of_types().transformers, config.get("model_type")
        yield (
            f"model: transformers {version} reads no field {_some(names)} for the type "
            f"{model_type}; if the model needs what they say, its logits will be wrong"
        )


def _own_code(config: Config) -> Iterator[str]:
    if config.get("auto_map"):
        yield (
            "model: config.json names code of its own (auto_map), which hagane does not run; "
            f"transformers' own {config.get('model_type')} is trained"
        )


def _saved_without_head(config: Config) -> Iterator[str]:
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes:
        return
    if any(part in str(name) for name in classes for part in WHOLE):
        return
    yield (
        f"model: was saved as {shown(cut(str(classes[0])))}, which has no output layer for tokens; "
        "if the weights lack it, training starts with a random one"
    )


def _other_parts(config: Config) -> Iterator[str]:
    """A type that transformers can load with its text part as a causal language model."""
    if not isinstance(config.get("text_config"), Mapping):
        return
    parts = [name for name in ("vision_config", "audio_config") if config.get(name)]
    if parts:
        yield (
            f"model: only the text part is trained; {' and '.join(parts)} and what they stand for "
            "stay as they are"
        )


def _some(names: list[str]) -> str:
    shown_names = [cut(name) for name in names[:MOST_NAMES]]
    more = len(names) - MOST_NAMES
    return ", ".join(shown_names) + (f" and {more} more" if more > 0 else "")
