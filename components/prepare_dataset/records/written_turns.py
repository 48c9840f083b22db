"""Turns as some files can only have them, or as some programs write them -> a list of turns.

A cell of CSV holds them as JSON text, and so do columns of Parquet that a database filled. Older
versions of `datasets` write a list of turns as an object of lists (`Sequence` of a dict).
"""

import json
from collections.abc import Collection
from typing import Any

_NAMES = ({"role", "content"}, {"from", "value"})
"""Keys that an object of lists has: of the chat APIs, and of ShareGPT."""


def with_turns(record: Any, texts: Collection[str]) -> Any:
    """The record, its turns in another writing as a list. JSON text is read only of the keys
    `texts`: an answer may be such a text too, and stays one."""
    if not isinstance(record, dict):
        return record
    written = {
        key: turns
        for key, value in record.items()
        if (turns := _turns(value, is_read=key in texts)) is not None
    }
    if written:
        return {**record, **written}
    return record


def _turns(value: Any, *, is_read: bool) -> list[Any] | None:
    if isinstance(value, str):
        if is_read and value.lstrip().startswith("["):
            return _turns_in_text(value)
        return None
    if isinstance(value, dict) and any(names <= value.keys() for names in _NAMES):
        return _turns_of_lists(value)
    return None


def _turns_in_text(text: str) -> list[Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_turns = isinstance(found, list) and bool(found) and all(map(_is_turn, found))
    if is_turns:
        return found
    return None


def _is_turn(value: Any) -> bool:
    """A turn of calls has no content."""
    return isinstance(value, dict) and ("role" in value or "from" in value)


def _turns_of_lists(lists: dict[str, Any]) -> list[Any] | None:
    columns = list(lists.values())
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return None
    return [dict(zip(lists, values, strict=True)) for values in zip(*columns, strict=True)]
