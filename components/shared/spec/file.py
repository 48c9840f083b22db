"""YAML text and `--set` overrides -> RunSpec, or every problem at once, each with its line."""

import copy
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from components.shared.errors import SpecError
from components.shared.printable import MOST_LETTERS, cut, is_secret_name, printable, shown
from components.shared.spec.places import FIELDS, paths_from, set_fields
from components.shared.spec.run_spec import RunSpec
from components.shared.spec.values import (
    NAME_PATTERN,
    OBJECT_PATTERN,
    TASK_PATTERN,
    USER_PATTERN,
)
from components.shared.spec.yaml_text import MOST_DEPTH, YamlProblem, parse_yaml, read_yaml
from components.shared.tree import whole_numbers

Location = tuple[str | int, ...]


def load_spec(path: Path, overrides: Iterable[str] = ()) -> RunSpec:
    """Reads a spec file and applies `a.b=c` overrides, the last one winning. Relative paths of the
    file count from its folder, those of overrides from the current folder.

    Raises:
        SpecError: the file is missing or no YAML mapping, an override has no `=`, or fields are
            wrong; one line each.
    """
    tree, lines, problems = read_fields(path, example="specs/demo.yaml")
    overrides = tuple(overrides)
    replaced = set_fields(overrides)
    of_file = [field for field in FIELDS if field not in replaced]
    misplaced = paths_from(tree, path.parent.absolute(), of_file)
    problems += [f"{_place_of_text(problem, lines, path)}{problem}" for problem in misplaced]
    problems += _override(
        tree, {f"--set {_shown_override(override)}": override for override in overrides}, lines
    )
    paths_from(tree, Path.cwd(), replaced)
    try:
        spec = parse_spec(tree)
    except ValidationError as error:
        problems.extend(_sentence(detail, lines, str(path)) for detail in error.errors())
        raise SpecProblems(*problems, rest=_repaired(tree, error)) from None
    if problems:
        raise SpecProblems(*problems, rest=spec)
    return spec


def read_fields(
    path: Path, *, example: str
) -> tuple[dict[str, Any], dict[Location, str], list[str]]:
    """The mapping in a YAML file, the line of each of its fields, and a sentence for each field
    that is given twice.

    Raises:
        SpecError: the file is missing or no YAML mapping.
    """
    try:
        read = read_yaml(path)
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file{_neighbours(path)}") from None
    if not isinstance(read.tree, dict):
        raise SpecError(f"{path}: {_kind(read.tree)}, must be a mapping of fields; see {example}")
    doubles = [
        f"{path}:{again}: {_dotted(where)}: given twice, first in line {first}"
        for where, first, again in _doubles(read.node)
    ]
    return read.tree, _lines_of(cast(yaml.Node, read.node)), doubles


def stored_spec(content: bytes, source: str) -> RunSpec:
    """The spec in a run's spec.yaml, which hagane wrote.

    Raises:
        SpecError: it is damaged, or another version of hagane wrote it; with what this version does
            not take.
    """
    try:
        tree = parse_yaml(content.decode("utf-8")).tree
    except UnicodeDecodeError:
        raise SpecError(f"{source}: {_NOT_OURS}: it is no text in UTF-8") from None
    except YamlProblem as error:
        raise SpecError(f"{source}: {_NOT_OURS}: {error.problems[0]}") from None
    if not isinstance(tree, dict):
        raise SpecError(f"{source}: {_NOT_OURS}: {_kind(tree)}")
    try:
        return parse_spec(tree)
    except ValidationError as error:
        problems = (_sentence(detail, {}, source) for detail in error.errors())
        raise SpecError(f"{source}: {_NOT_OURS}", *problems) from None


_NOT_OURS = (
    "is no spec of this version of hagane; use the version that began the run, or set another name"
)


class SpecProblems(SpecError):
    """What is wrong in a spec file; `rest` is the spec without the wrong fields, so that the rest
    can be checked too.

    It is None where a field that has no default is wrong or missing.
    """

    def __init__(self, *problems: str, rest: RunSpec | None) -> None:
        super().__init__(*problems)
        self.rest = rest


def parse_spec(tree: Mapping[str, Any]) -> RunSpec:
    """Builds a spec from plain data, such as a KFP parameter, where whole numbers arrive as floats.

    Raises:
        pydantic.ValidationError: any field is wrong. SpecError: it is nested too deep, or a text
        holds a NUL.
    """
    _refuse_unbounded(tree)
    return RunSpec.model_validate_json(json.dumps(whole_numbers(tree), default=str))


def spec_from_parameter(
    tree: Mapping[str, Any], overrides: Mapping[str, str] | None = None
) -> RunSpec:
    """`parse_spec` for a value that came without a file, with overrides as `load_spec` has them,
    each under the name that people know it by. Raises SpecError, one line a problem."""
    changed = copy.deepcopy(dict(tree))
    lines: dict[Location, str] = {}
    problems = _override(changed, overrides or {}, lines)
    try:
        spec = parse_spec(changed)
    except ValidationError as error:
        raise SpecError(
            *problems, *(_sentence(detail, lines, "spec") for detail in error.errors())
        ) from None
    if problems:
        raise SpecError(*problems)
    return spec


def spec_yaml(spec: RunSpec) -> str:
    """The spec as YAML in the order of its fields, every default filled in."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _repaired(tree: dict[str, Any], error: ValidationError) -> RunSpec | None:
    tree = copy.deepcopy(tree)
    for detail in error.errors():
        *parents, last = _field_location(detail["loc"]) or ("",)
        branch: Any = tree
        for key in parents:
            if isinstance(branch, dict):
                branch = branch.get(key, {})
            else:
                branch = {}
        if isinstance(branch, dict):
            branch.pop(last, None)
    try:
        return parse_spec(tree)
    except ValidationError:
        return None


def _neighbours(path: Path) -> str:
    if path.parent.is_dir():
        near = sorted(str(each) for each in path.parent.glob("*.yaml"))
    else:
        near = []
    if near:
        return f"; here are: {', '.join(near[:8])}"
    return ""


def _kind(tree: object) -> str:
    if tree is None:
        return "is empty"
    return f"found {type(tree).__name__}"


def _refuse_unbounded(tree: object, where: Location = ()) -> None:
    """What came without a file has no limit of YAML's. Raises SpecError before a library recurses
    too deep, or a path holds a NUL."""
    if len(where) > 2 * MOST_DEPTH:
        raise SpecError(f"spec: is nested deeper than {2 * MOST_DEPTH} levels; write it flatter")
    if isinstance(tree, str) and "\0" in tree:
        raise SpecError(
            f"{_dotted(where)}: got {shown(tree)}, which holds a NUL character; take it out"
        )
    if isinstance(tree, dict):
        for key, item in tree.items():
            _refuse_unbounded(item, (*where, key))
    elif isinstance(tree, (list, tuple)):
        for index, item in enumerate(tree):
            _refuse_unbounded(item, (*where, index))


def _override(
    tree: dict[str, Any], overrides: Mapping[str, str], lines: dict[Location, str]
) -> list[str]:
    """The tree has what each override (name that people know it by -> `a.b=value`) sets, and
    `lines` that name for its place. Returns one line for each that could not be applied."""
    problems: list[str] = []
    for name, override in overrides.items():
        try:
            lines[_apply_override(tree, override, name)] = name
        except SpecError as error:
            problems.extend(error.problems)
    return problems


def _shown_override(override: str) -> str:
    """As it was typed, but cut, and without the value of what looks like a secret."""
    dotted, equals, _ = override.partition("=")
    return printable(cut(f"{dotted}=***" if equals and is_secret_name(dotted) else override))


def _apply_override(tree: dict[str, Any], override: str, name: str) -> Location:
    dotted, equals, text = override.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise SpecError(f"{name}: must be of the form a.b=value, such as training.epochs=5")
    branch = tree
    for key in keys[:-1]:
        child = branch.get(key)
        if child is None:
            child = branch[key] = {}
        if not isinstance(child, dict):
            raise SpecError(f"{name}: {shown(key)} holds a value, not fields")
        branch = child
    try:
        branch[keys[-1]] = parse_yaml(text).tree
    except YamlProblem as error:
        raise SpecError(
            f"{name}: the value cannot be read: {error.problems[0]}; quote it"
        ) from None
    return tuple(keys)


def _lines_of(node: yaml.Node, where: Location = ()) -> dict[Location, str]:
    lines = {where: str(node.start_mark.line + 1)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines |= _lines_of(value, (*where, str(key.value)))
            lines[(*where, str(key.value))] = str(key.start_mark.line + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines |= _lines_of(value, (*where, index))
    return lines


def _doubles(node: yaml.Node | None, where: Location = ()) -> Iterable[tuple[Location, int, int]]:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _doubles(item, (*where, index))
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in first:
            yield (*where, str(key.value)), first[key.value], line
        first.setdefault(key.value, line)
        yield from _doubles(value, (*where, str(key.value)))


def _place_of_text(problem: str, lines: Mapping[Location, str], path: Path) -> str:
    """`file:line: ` of the field that a sentence begins with."""
    return place_of(tuple(problem.partition(":")[0].split(".")), lines, str(path))


def _dotted(where: Location) -> str:
    return printable(".".join(cut(str(part)) for part in where))


def _field_location(where: Location) -> Location:
    """pydantic names the branch of a union it tried (`lora.targets.tuple[…]`); users know only
    fields."""
    kept: list[str | int] = []
    model: type[BaseModel] | None = RunSpec
    for part in where:
        if model is not None and isinstance(part, str) and part in model.model_fields:
            kept.append(part)
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
            else:
                model = None
        elif model is not None:
            kept.append(part)
            break
    return tuple(kept)


def _sentence(detail: ErrorDetails, lines: Mapping[Location, str], source: str) -> str:
    where = _field_location(detail["loc"])
    return (
        f"{place_of(where, lines, source)}{_dotted(where) or 'spec'}: "
        f"{complaint(detail, where, _known_keys)}"
    )


def place_of(where: Location, lines: Mapping[Location, str], source: str) -> str:
    """`file:line: ` of the field, or of the nearest one around it; the override's name where one
    set it."""
    line = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), "")
    if line.isdigit():
        return f"{source}:{line}: "
    if line:
        return f"{line}: "
    return f"{source}: "


def complaint(
    detail: ErrorDetails, where: Location, known_keys: Callable[[Location], list[str]]
) -> str:
    """What was found and what is allowed, of one of pydantic's errors. `known_keys` gives the
    fields at a place."""
    limits = detail.get("ctx", {})
    if where:
        name = str(where[-1])
    else:
        name = ""
    found = shown(detail["input"], name=name)
    if isinstance(detail["input"], float) and not math.isfinite(detail["input"]):
        return f"got {found}, must be a finite number"
    match detail["type"]:
        case "extra_forbidden":
            allowed = known_keys(where[:-1])
            if len(name) <= MOST_LETTERS:
                near = difflib.get_close_matches(name, allowed, n=1)
            else:
                near = []
            return (
                f"unknown key; {f'did you mean {near[0]!r}? ' if near else ''}allowed: "
                f"{', '.join(allowed)}"
            )
        case "missing":
            return "missing; this field has no default"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than" as kind:
            words = {
                "greater_than_equal": "at least",
                "greater_than": "more than",
                "less_than_equal": "at most",
                "less_than": "less than",
            }
            return f"got {found}, must be {words[kind]} {whole_numbers(limits[_bound(kind)])}"
        case "literal_error":
            return f"got {found}, allowed: {limits['expected']}"
        case "value_error":
            return str(limits["error"])
        case "string_pattern_mismatch":
            return f"got {found}, must be {_PATTERNS[limits['pattern']]}"
        case kind:
            return f"got {found}, {_WANTED.get(kind, detail['msg'])}"


def _bound(kind: str) -> str:
    return {
        "greater_than_equal": "ge",
        "greater_than": "gt",
        "less_than_equal": "le",
        "less_than": "lt",
    }[kind]


_WANTED = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text; quote it if it looks like a number",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "tuple_type": "must be a list",
    "string_too_short": "must not be empty",
}
_PATTERNS = {
    NAME_PATTERN: (
        "1 to 50 small letters, digits and hyphens, the first a letter, the last no hyphen"
    ),
    OBJECT_PATTERN: (
        "the name of an object of Kubernetes: small letters, digits, hyphens and dots, no hyphen "
        "or dot at an end"
    ),
    USER_PATTERN: (
        "1 to 63 letters, digits, dots, hyphens and underscores, the first and the last a letter "
        "or a digit"
    ),
    TASK_PATTERN: "the name of one task: 1 to 200 letters without white space, '/' and '*'",
}
"""Pattern of a field -> the same in words."""


def check_name(name: str, where: str) -> None:
    """Raises SpecError where this could be no name of a run or of a published model."""
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise SpecError(f"{where}: got {shown(name)}, must be {_PATTERNS[NAME_PATTERN]}")


def _known_keys(where: Location) -> list[str]:
    model: type[BaseModel] = RunSpec
    for part in where:
        annotation = model.model_fields[str(part)].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)
