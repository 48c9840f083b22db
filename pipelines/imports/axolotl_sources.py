"""`datasets:` of an Axolotl YAML -> sources of data.train, and what they cannot say of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipelines.imports import converters as to
from pipelines.imports.rules import Rule

Source = dict[str, Any]
LeftOut = tuple[str, Any, str]
FORMS = {
    "alpaca": "alpaca",
    "chat_template": None,
    "sharegpt": "sharegpt",
    "completion": "text",
    "input_output": None,
}
"""Axolotl's type -> data.format; None is recognised by the records' keys."""
BUILDERS = ("json", "csv", "parquet", "arrow", "text")
"""Not data sets, but what `datasets` reads files with."""
COLUMNS = {
    "alpaca": {
        "field_instruction": "instruction",
        "field_input": "input",
        "field_output": "output",
        "field_system": "system",
    },
    "text": {"field": "text"},
    "sharegpt": {"field_messages": "conversations"},
    "messages": {"field_messages": "messages"},
}
"""data.format -> Axolotl's key for the name of a column -> the form's column."""
ROLES = ({"role": "role", "content": "content"}, {"role": "from", "content": "value"})
"""`message_property_mappings` that hagane recognises by itself."""
MORE = "data.train takes path, type, split and columns of a source; set the rest there"
WHY = {
    "name": "a configuration of the data set: name its folder or files in path",
    "shards": "a part of the data: use repeat of the source, such as 0.1",
    "type": "no form that hagane has: set format and columns of the source",
    "revision": "only a data set of the hub has one",
}


@dataclass
class _Reading:
    """One source of the file: what is said of it in the spec, and its keys that are not used."""

    rest: Source
    source: Source = field(default_factory=dict)

    def take(self, key: str) -> Any:
        return self.rest.pop(key, None)


def sources(value: Any) -> list[Source] | None:
    """As data.train; None where a source has no path, or several files."""
    found = [reading.source for reading in _readings(value)]
    if found and all(source.get("path") for source in found):
        return found
    return None


def left_out(value: Any) -> Iterator[LeftOut]:
    """(name below `datasets`, value, why) of what the sources have and the spec cannot say."""
    for number, reading in enumerate(_readings(value)):
        if not reading.source.get("path"):
            return
        for key, rest in reading.rest.items():
            if rest not in (None, "", [], {}, False):
                why = WHY.get(key.partition(".")[0], "data.train has nothing like it")
                yield f"[{number}].{key}", rest, why


SOURCES = Rule("taken", MORE, "data.train", sources, left_out=left_out)


def _readings(value: Any) -> list[_Reading]:
    if isinstance(value, list):
        listed = value
    else:
        listed = [value]
    return [_read(each) for each in listed]


def _read(each: Any) -> _Reading:
    if not isinstance(each, dict):
        return _Reading({}, {"path": to.data_place(each)})
    reading = _Reading({str(key): value for key, value in each.items()})
    reading.source["path"] = _place(reading)
    _form(reading)
    split = reading.take("split")
    if split:
        reading.source["split"] = str(split)
    reading.take("ds_type")
    return reading


def _place(reading: _Reading) -> str | None:
    """The files, or the data set of the hub with its revision."""
    path, files = reading.take("path"), reading.take("data_files")
    if isinstance(files, list):
        if len(files) == 1:
            files = files[0]
        else:
            files = ""
    if files is not None and path in (None, *BUILDERS):
        return to.data_place(files)
    place = to.data_place(path)
    if place is None or not place.startswith("hf://"):
        if files is None:
            return place
        return None
    revision = reading.take("revision")
    if revision:
        versioned = f"{place}@{revision}"
    else:
        versioned = place
    if files is None:
        return versioned
    if files:
        return f"{versioned}/{files}"
    return None


def _form(reading: _Reading) -> None:
    """`format` and `columns` of the source, as far as Axolotl's type names them."""
    kind = reading.rest.get("type")
    if isinstance(kind, dict):
        reading.take("type")
        named = {key: kind[key] for key in kind if key in COLUMNS["alpaca"]}
        reading.rest |= named
        reading.rest |= {f"type.{key}": kind[key] for key in kind if key not in named}
        if named:
            form = "alpaca"
        else:
            form = None
    else:
        first = str(kind).partition(".")[0]
        form = FORMS.get(first)
        if first in FORMS:
            reading.take("type")
        if first == "chat_template" and reading.rest.get("field_messages"):
            form = "messages"
    if form is not None:
        reading.source["format"] = form
        _columns(reading, COLUMNS.get(form, {}))
    if reading.rest.get("message_property_mappings") in ROLES:
        reading.take("message_property_mappings")


def _columns(reading: _Reading, names: dict[str, str]) -> None:
    found = {column: reading.take(key) for key, column in names.items() if reading.rest.get(key)}
    columns = {column: str(key) for column, key in found.items() if column != key}
    if columns:
        reading.source["columns"] = columns
