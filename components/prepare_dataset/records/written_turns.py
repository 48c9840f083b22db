"""Turns as some files can only have them, or as some programs write them -> a list of turns.

A cell of CSV holds them as JSON text, and so do columns of Parquet that a database filled. Older
versions of `datasets` write a list of turns as an object of lists (`Sequence` of a dict).
"""

import json
from typing import Any

_NAMES = ({"role", "content"}, {"from", "value"})
"""Keys that a turn has: of the chat APIs, and of ShareGPT."""


def with_turns(record: Any) -> Any:
    """The record, each of its values that is a list of turns in another writing as that list."""
    if not isinstance(record, dict):
        return record
    written = {key: turns for key, value in record.items() if (turns := _turns(value)) is not None}
    if written:
        return {**record, **written}
    return record


def _turns(value: Any) -> list[Any] | None:
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            return _turns_in_text(value)
        return None
    if isinstance(value, dict) and any(names <= value.keys() for names in _NAMES):
        return _turns_of_lists(value)
    return None


def _turns_in_text(text: str) -> list[Any] | None:
    """An answer may be a JSON list too: only one of turns is taken for turns."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_turns = isinstance(found, list) and bool(found) and all(map(_is_turn, found))
    if is_turns:
        return found
    return None


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and any(names <= value.keys() for names in _NAMES)


def _turns_of_lists(lists: dict[str, Any]) -> list[Any] | None:
    columns = list(lists.values())
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return None
    return [dict(zip(lists, values, strict=True)) for values in zip(*columns, strict=True)]
