"""A tree of mappings and lists, as JSON and YAML have them: flat by dotted names, and with whole
numbers where KFP carries floats."""

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(
    tree: Mapping[str, Any], where: str = "", *, empty_too: bool = False
) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of everything in the tree; `empty_too`: an empty mapping is a value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and (value or not empty_too):
            yield from leaves(value, f"{where}{key}.", empty_too=empty_too)
        else:
            yield where + key, value


def nested(flat: Mapping[str, object]) -> dict[str, Any]:
    """The tree whose leaves these are, in their order."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, key = name.split(".")
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[key] = value
    return tree


def whole_numbers(value: Any) -> Any:
    """The same with 4 for 4.0: KFP carries every number in a structure as a float."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, dict):
        return {key: whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [whole_numbers(item) for item in value]
    return value
