"""Values of other tools' files -> values of the spec; None where the spec cannot say it."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from components.shared.spec.training import TrainingSpec

SCHEDULES = get_args(TrainingSpec.model_fields["lr_schedule"].annotation)
HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
FILE_ENDINGS = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt"),
    *(".gz", ".zst"),
)
"""Of what prepare_dataset reads."""
TARGET_WORDS = {"all-linear": "all", "all": "all"}


def number(value: Any) -> float | None:
    """Also a number in exponent form without a dot, which YAML reads as text; no infinite one."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if math.isfinite(found):
        return found
    return None


def above_zero(value: Any) -> float | None:
    found = number(value)
    if found is not None and found > 0:
        return found
    return None


def whole(value: Any) -> int | None:
    found = number(value)
    if found is not None and found >= 1 and found == int(found):
        return int(found)
    return None


def rounded_up(value: Any) -> int | None:
    """Epochs: a part of one counts as a whole one."""
    found = above_zero(value)
    if found is None:
        return None
    return math.ceil(found)


def four_bits(value: Any) -> str | None:
    """A number of bits, or whether there are four."""
    if value is True or value == 4:
        return "nf4"
    return None


def yes_or_no(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return None


def schedule(value: Any) -> str | None:
    named = {"constant": "constant_with_warmup", "WarmupDecayLR": "linear"}
    found = named.get(str(value), str(value))
    if found in SCHEDULES:
        return found
    return None


def share(value: Any) -> float | None:
    """A share below one; a count of steps is none."""
    found = number(value)
    if found is not None and 0 <= found < 1:
        return found
    return None


def targets(value: Any) -> Any:
    """A list of layer names, names joined by commas, or a word for all linear layers."""
    if isinstance(value, str):
        names = [name.strip() for name in value.split(",") if name.strip()]
        return TARGET_WORDS.get(value, names)
    if isinstance(value, list):
        return list(value)
    return None


VOCABULARY_LAYERS = {
    **dict.fromkeys(("embed_tokens", "embed_in", "wte", "word_embeddings"), "embeddings"),
    **dict.fromkeys(("lm_head", "embed_out"), "head"),
}
"""Names of transformers' layers -> words of `lora.also_train`."""


def vocabulary_layers(value: Any) -> list[str] | None:
    """A list of layer names, or names joined by commas, of embeddings and head alone."""
    names = targets(value)
    if not isinstance(names, list) or not names:
        return None
    if any(name not in VOCABULARY_LAYERS for name in names):
        return None
    return list(dict.fromkeys(VOCABULARY_LAYERS[name] for name in names))


def texts(value: Any) -> list[str] | None:
    """A list of texts, or texts joined by commas."""
    if isinstance(value, str):
        value = [text.strip() for text in value.split(",")]
    if isinstance(value, list) and value and all(isinstance(text, str) and text for text in value):
        return list(value)
    return None


def bf16(value: Any) -> str | None:
    if isinstance(value, bool):
        if value:
            return "bf16"
        return "auto"
    if value in ("true", "full"):
        return "bf16"
    return None


def unless(value: Any) -> bool | None:
    """The opposite, for a key that switches off what the spec's field switches on."""
    if isinstance(value, bool):
        return not value
    return None


def one_of(words: Mapping[str, str]) -> Callable[[Any], str | None]:
    """A converter for a key that has one of these words."""
    return lambda value: words.get(value) if isinstance(value, str) else None


def when_true(spec_value: Any) -> Any:
    """A converter that gives this for true and nothing for all else."""
    return lambda value: spec_value if value is True else None


def data_place(value: Any) -> str | None:
    """A file or folder stays as it is; `owner/name` that is not here is a data set of the hub."""
    if not isinstance(value, str):
        return None
    here = value.lower().endswith(FILE_ENDINGS) or Path(value).exists()
    if HUB_ID.fullmatch(value) and not here:
        return f"hf://{value}"
    return value
