"""What the types of all documents have in common."""

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class FrozenModel(BaseModel):
    """What passes between steps: read-only, exact types, no key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


def exponent_number(value: object) -> object:
    """`2e-4` as a number: YAML 1.1, which PyYAML reads, takes an exponent without a dot for
    text."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


Number = Annotated[float, BeforeValidator(exponent_number), Field(allow_inf_nan=False)]
