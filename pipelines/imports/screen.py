"""An imported file -> its spec as YAML, and a line for each key, for a terminal."""

from collections.abc import Iterator

import yaml

from components.shared.figures import plural
from components.shared.printable import cut, public, shown
from pipelines.imports.foreign import Imported
from pipelines.imports.rules import Fate, Key

HEADINGS: dict[Fate, str] = {
    "unknown": "not known",
    "lost": "lost: hagane has nothing like it",
    "taken": "taken",
    "derived": "derived by the plan",
    "without effect": "without effect here",
}
"""What a reader must look at comes first."""


def spec_text(imported: Imported, source: str) -> str:
    """The spec as YAML, with a line for each field that it still needs."""
    head = [f"# {imported.kind}: {source}"]
    head += [f"# {field}: is not in that file; set it" for field in imported.missing]
    body = yaml.safe_dump(imported.spec, sort_keys=False, allow_unicode=True)
    return "\n".join(head) + "\n" + body


def lines(imported: Imported, source: str, *, briefly: bool = False) -> Iterator[str]:
    """How many keys became what, then each key under its heading; briefly, only those without a
    place in the spec."""
    counts = [f"{len(_of(imported, fate))} {fate}" for fate in HEADINGS]
    yield f"{source}: {imported.kind}, {plural(len(imported.keys), 'key')}: {', '.join(counts)}"
    for fate, heading in HEADINGS.items():
        keys = _of(imported, fate)
        if keys and not (briefly and fate not in ("unknown", "lost")):
            yield f"{heading}:"
            yield from (f"  {_line(key)}" for key in keys)
    yield from imported.remarks
    for field in imported.missing:
        yield f"{field}: is not in the file; set it in the spec, or by --set {field}=VALUE"


def _of(imported: Imported, fate: Fate) -> list[Key]:
    return [key for key in imported.keys if key.fate == fate]


def _line(key: Key) -> str:
    value = cut(shown(public(key.value), name=key.name), 60)
    if key.fate != "taken":
        return f"{key.name} = {value}: {key.note}"
    became = cut(shown(public(key.spec_value), name=key.spec_field), 60)
    if key.note:
        note = f" ({key.note})"
    else:
        note = ""
    return f"{key.name} = {value} -> {key.spec_field}: {became}{note}"
