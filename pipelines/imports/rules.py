"""What becomes of one key of another tool's file: the field of the spec that it is, or why it is
none."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.imports.allowed import refusal
from pipelines.imports.converters import number

Fate = Literal["taken", "derived", "without effect", "lost", "unknown"]
Convert = Callable[[Any], Any]
LeftOut = Callable[[Any], Iterable[tuple[str, Any, str]]]


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
    """Values that ask for what hagane does anyway, or that stand for "not set"."""
    hint: str = ""
    """Shown with a key that is taken."""
    hint_if_changed: str = ""
    """Shown with a key that is taken with another value than the file's."""
    left_out: LeftOut | None = None
    """Value -> (name below the key, its value, why) for each part that `convert` leaves out."""


@dataclass(frozen=True)
class Key:
    """A key of the file and what became of it."""

    name: str
    value: Any
    fate: Fate
    note: str
    spec_field: str = ""
    """The field that it is taken for, or would be."""
    spec_value: Any = None


def taken(
    spec_field: str, convert: Convert | None = None, note: str = "", *unset: Any, hint: str = ""
) -> Rule:
    """The value goes into this field of the spec; `unset` are values that stand for none."""
    return Rule("taken", note, spec_field, convert, same=unset, hint=hint)


def derived(note: str, *unset: Any) -> Rule:
    """The plan works it out from the rest; `unset` are values that ask for nothing."""
    return Rule("derived", note, same=unset)


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
    if rule.fate == "derived" and value in rule.same:
        return Key(name, value, "without effect", "not set")
    if rule.fate == "lost" and (value in rule.same or _is_off(value, rule)):
        return Key(name, value, "without effect", "hagane does the same")
    return Key(name, value, rule.fate, rule.note)


def left_out(name: str, value: Any, rules: Mapping[str, Rule]) -> Iterator[Key]:
    """A key for each part of the value that its field of the spec cannot say."""
    rule = rules.get(name)
    if rule is None or rule.left_out is None:
        return
    for part, part_value, why in rule.left_out(value):
        yield Key(f"{name}{part}", part_value, "lost", why)


def _is_off(value: Any, rule: Rule) -> bool:
    """Whether the key switches off what hagane does not have."""
    return value is False and not any(same is True for same in rule.same)


def _taken(name: str, value: Any, rule: Rule) -> Key:
    if value in rule.same:
        return Key(name, value, "without effect", "not set")
    if rule.convert is not None:
        spec_value = rule.convert(value)
    else:
        spec_value = value
    if spec_value is None and value is False:
        return Key(name, value, "without effect", "not set")
    if spec_value is None:
        note = rule.note or f"{rule.spec_field} cannot say this"
        return Key(name, value, "lost", note, rule.spec_field)
    refused = refusal(rule.spec_field, spec_value)
    if refused is not None:
        return Key(name, value, "lost", refused, rule.spec_field)
    if spec_value != number(value):
        changed = rule.hint_if_changed
    else:
        changed = ""
    return Key(name, value, "taken", rule.hint or changed, rule.spec_field, spec_value)


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
