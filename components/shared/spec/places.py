"""Relative paths of a spec -> absolute ones: what a file says counts from the file's folder, what
`--set` says from the current folder."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from components.shared.model.hub_id import is_hub_id
from components.shared.printable import shown

Field = tuple[str, ...]
STORE: Field = ("store",)
MODEL: Field = ("model", "source")
DATA: tuple[Field, ...] = (("data", "train"), ("data", "held_out"))
TEMPLATE: Field = ("data", "chat_template")
TASKS: Field = ("evaluation", "lm_eval", "folder")
FIELDS: tuple[Field, ...] = (STORE, MODEL, *DATA, TEMPLATE, TASKS)
"""Every field of a spec that may name a path of this machine."""
OWN_TEMPLATE = "model"
"""Value of `data.chat_template` that is no path."""


def paths_from(tree: dict[str, Any], folder: Path, fields: Iterable[Field] = FIELDS) -> list[str]:
    """The tree's relative paths are absolute, counted from the folder. Returns one sentence, which
    begins with the field, for each that is not there but in the current folder is."""
    problems: list[str] = []
    for field in fields:
        for holder, key in _texts(tree, field):
            problems += _elsewhere(field, holder[key], folder)
            holder[key] = absolute(field, holder[key], folder)
    return problems


def set_fields(overrides: Iterable[str]) -> list[Field]:
    """Those of FIELDS that `a.b=value` overrides set, themselves or with all of their section."""
    keys = [tuple(each.partition("=")[0].split(".")) for each in overrides]
    return [field for field in FIELDS if any(field[: len(key)] == key for key in keys)]


def nearest_name(path: str) -> str:
    """A path of this machine for a message: from the current folder where it lies below it."""
    here = Path.cwd()
    if Path(path).is_relative_to(here):
        return os.path.relpath(path, here)
    return path


def written_for(field: Field, value: str, folder: Path) -> str:
    """A path that counts from the current folder, as a spec in `folder` must write it."""
    here = Path.cwd()
    if folder.absolute() == here or not _is_relative(field, value, here):
        return value
    return _joined(field, os.path.relpath(here, folder.absolute()), value, is_there=here / value)


def moved(tree: dict[str, Any], folder: Path) -> None:
    """Paths that count from the current folder are as a spec in `folder` must write them."""
    for field in FIELDS:
        for holder, key in _texts(tree, field):
            holder[key] = written_for(field, holder[key], folder)


def absolute(field: Field, value: str, folder: Path) -> str:
    """The value with the folder before it where it is a relative path."""
    if not _is_relative(field, value, folder):
        return value
    return _joined(field, str(folder), value, is_there=folder / value)


def _joined(field: Field, base: str, value: str, *, is_there: Path) -> str:
    """The folder's own `*` and `[` are no pattern. What is there is named, not searched."""
    if field in DATA and glob.has_magic(value) and not _there(is_there):
        base = glob.escape(base)
    return os.path.normpath(f"{base}/{value}")


def _texts(tree: dict[str, Any], field: Field) -> Iterator[tuple[Any, Any]]:
    """(mapping or list, key) of each text that the field holds; other things are left to the
    reader of the spec."""
    *parents, last = field
    branch: Any = tree
    for key in parents:
        if isinstance(branch, dict):
            branch = branch.get(key)
        else:
            branch = None
    if not isinstance(branch, dict):
        return
    value = branch.get(last)
    if isinstance(value, str):
        yield branch, last
    for number, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, str):
            yield value, number
        elif isinstance(item, dict) and isinstance(item.get("path"), str):
            yield item, "path"


def _is_relative(field: Field, value: str, folder: Path) -> bool:
    no_path = not value or "\0" in value or "://" in value or value.startswith(("/", "~"))
    if no_path or (field == TEMPLATE and value == OWN_TEMPLATE):
        return False
    return field != MODEL or not is_hub_id(value) or _there(folder / value)


def _elsewhere(field: Field, value: str, folder: Path) -> list[str]:
    here = Path.cwd()
    is_of_hub = field == MODEL and is_hub_id(value)
    if is_of_hub or field == STORE or here == folder or not _is_relative(field, value, here):
        return []
    if _there(folder / value) or not _there(here / value):
        return []
    return [
        f"{'.'.join(field)}: got {shown(value)}, which is no path from {folder}, the folder of the "
        f"spec, though one from the current folder. Fix: write "
        f"{shown(os.path.relpath(here / value, folder))}"
    ]


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long for the file system
        return False
