"""What becomes of one key of another tool's file: the field of the spec that it is, or why it is
none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Fate = Literal["taken", "derived", "without effect", "lost", "unknown"]
Convert = Callable[[Any], Any]


@dataclass(frozen=True)
class Rule:
    """One rule for one key."""

    fate: Fate
    note: str = ""
    spec_field: str = ""
    """Dotted, where the key's value goes into the spec."""
    convert: Convert | None = None
    """Value -> the spec's value; None where the spec cannot say it: then the key is lost, and
    `note` says why."""
    same: tuple[Any, ...] = field(default=())
    """Values that ask for what hagane does anyway."""


@dataclass(frozen=True)
class Key:
    """A key of the file and what became of it."""

    name: str
    value: Any
    fate: Fate
    note: str
    spec_field: str = ""
    spec_value: Any = None


def taken(spec_field: str, convert: Convert | None = None, note: str = "") -> Rule:
    """The value goes into this field of the spec."""
    return Rule("taken", note, spec_field, convert)


def derived(note: str) -> Rule:
    """The plan works it out from the rest."""
    return Rule("derived", note)


def no_effect(note: str) -> Rule:
    """Nothing of the training changes with it, or hagane always does it so."""
    return Rule("without effect", note)


def lost(note: str, *same: Any) -> Rule:
    """hagane has nothing like it; `same` are values that ask for what it does anyway."""
    return Rule("lost", note, same=same)


def resolve(name: str, value: Any, rules: Mapping[str, Rule]) -> Key:
    """What becomes of this key by the rules of its file's kind; of a section without a rule for
    the key itself, by the section's."""
    rule = rules.get(name) or rules.get(name.partition(".")[0] + ".*")
    if rule is None:
        return Key(
            name, value, "unknown", "no documented key of this file; check how it is written"
        )
    if value is None or value in ("", [], {}):
        return Key(name, value, "without effect", "not set")
    if value == "auto":
        return Key(name, value, "derived", rule.spec_field or rule.note or "the plan sets it")
    if rule.spec_field:
        return _taken(name, value, rule)
    off = value is False and not rule.same
    if rule.fate == "lost" and (value in rule.same or off):
        return Key(name, value, "without effect", "hagane does the same")
    return Key(name, value, rule.fate, rule.note)


def _taken(name: str, value: Any, rule: Rule) -> Key:
    spec_value = rule.convert(value) if rule.convert is not None else value
    if spec_value is None:
        note = rule.note or f"{rule.spec_field} cannot say this"
        return Key(name, value, "lost", note)
    return Key(name, value, "taken", "", rule.spec_field, spec_value)


def flat(tree: Mapping[str, Any], sections: tuple[str, ...], where: str = "") -> dict[str, Any]:
    """Dotted name -> value; only these sections are opened, others are one value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{where}{key}"
        if isinstance(value, Mapping) and value and name in sections:
            found |= flat(value, sections, f"{name}.")
        else:
            found[name] = value
    return found
