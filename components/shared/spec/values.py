"""Names and limits that several sections of the spec share."""

from collections.abc import Callable
from pathlib import PurePosixPath

from components.shared.printable import shown

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$"
OBJECT_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
"""Name of an object of Kubernetes: an RFC 1123 subdomain."""
TASK_PATTERN = r"^[^\s/*]{1,200}$"
"""Of a task of lm-evaluation-harness; a slash divides it from its metric."""
USER_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
MOST_ROWS = 1_048_576
"""Of a batch, and of what is measured: more is a slip of the hand, and overflows what is counted
from it."""
MOST_MINUTES = 525_600
"""A year."""
PUBLISHED = "published"
"""Folder beside the runs: no run has this name."""


def auto_or_whole(least: int) -> Callable[[object], object]:
    """Checks a value: auto, or a whole number from `least` to MOST_ROWS."""

    def checked(value: object) -> object:
        if value == "auto":
            return value
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST_ROWS:
            return value
        allowed = f"auto or a whole number from {least} to {MOST_ROWS}"
        raise ValueError(f"got {shown(value)}, must be {allowed}")

    return checked


def auto_or_bool(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError(f"got {shown(value)}, must be auto, true or false")


def name_elsewhere(place: str) -> str:
    """A place for readers who do not have this machine: of one of its absolute paths the last part,
    as what is before it says who trained where."""
    if place.startswith("/"):
        return PurePosixPath(place).name
    return place
