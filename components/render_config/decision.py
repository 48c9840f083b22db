"""What every choice of the plan comes as: a value, why it is so, and warnings to read first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value", covariant=True)


@dataclass(frozen=True)
class Decision(Generic[Value]):
    """One value of the plan."""

    value: Value
    reason: str
    """In one sentence, for the plan's page."""
    cautions: tuple[str, ...] = ()
    """What is allowed, and wasteful or risky: one line each, as `field: …`."""


@dataclass(frozen=True)
class Section(Generic[Value]):
    """Values of the plan that follow from one another, such as its steps."""

    value: Value
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    """Field of the plan, dotted -> why it has its value."""
    cautions: tuple[str, ...] = ()
