"""YAML text -> plain data and its nodes, within limits: a small file cannot stand for a large or an
endless one.

What PyYAML's SafeLoader gives, but for: no tags, keys are text as written, dates are text, no value
is shared by two places. Limits are far above any spec: the longest of this repository has 2 kB,
depth 5 and 80 nodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from yaml.reader import ReaderError

from components.shared.errors import SpecError
from components.shared.printable import cut, shown

MOST_BYTES = 256 * 1024
MOST_NODES = 20_000
"""Values and keys, those behind an alias counted wherever it stands."""
MOST_DEPTH = 50
MOST_DIGITS = 40
"""Of a whole number: 128 bits take 39."""


@dataclass(frozen=True)
class YamlText:
    """One document."""

    tree: Any
    node: yaml.Node | None
    """Where each value stands in the text; None for an empty document."""


class YamlProblem(SpecError):
    """The text is not YAML, or is beyond a limit; `line` counts from 1."""

    def __init__(self, problem: str, line: int | None) -> None:
        super().__init__(problem)
        self.line = line


def read_yaml(path: Path, *, most_bytes: int = MOST_BYTES) -> YamlText:
    """The document in a file.

    Raises:
        FileNotFoundError: it is not there. SpecError: it cannot be read, is too large, not YAML, or
            beyond a limit.
    """
    text = read_text(path, most_bytes=most_bytes)
    try:
        return parse_yaml(text)
    except YamlProblem as error:
        if error.line is None:
            where = str(path)
        else:
            where = f"{path}:{error.line}"
        raise SpecError(f"{where}: {error.problems[0]}") from None


def read_text(path: Path, *, most_bytes: int = MOST_BYTES) -> str:
    """A text file of at most this many bytes. Raises as `read_yaml`."""
    try:
        if (
            path.exists() and not path.is_file() and not path.is_relative_to("/dev")
        ):  # /dev/stdin may be a pipe
            raise SpecError(f"{path}: is no file; name a YAML file")
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # UnicodeDecodeError, or a path with a NUL
        raise SpecError(f"{path}: cannot be read: {cut(str(error), 200)}") from None
    if len(content) > most_bytes:
        raise SpecError(
            f"{path}: has more than {most_bytes:,} bytes, allowed are {most_bytes:,}; take out "
            "what is no field of it"
        )
    return text


def parse_yaml(text: str) -> YamlText:
    """The document in a text. Raises YamlProblem."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = cast("yaml.Node | None", loader.get_single_node())
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlProblem(
            f"not YAML: the character {error.character:#06x} is not allowed in it", line
        ) from None
    except yaml.YAMLError as error:
        raise _not_yaml(error) from None
    except (ValueError, OverflowError):  # PyYAML 6.0 on `"\U00110000"`
        raise YamlProblem(
            "not YAML: an escape stands for no character",
            None if loader is None else loader.line + 1,
        ) from None
    if node is None:
        return YamlText(None, None)
    if _num_nodes(node, {}) > MOST_NODES:
        raise YamlProblem(
            (
                f"has more than {MOST_NODES:,} values, with aliases written out; write it without "
                "aliases, or shorter"
            ),
            None,
        )
    return YamlText(_value(loader, node), node)


class _Loader(yaml.SafeLoader):
    """Refuses tags, depth and number while it reads, before anything grows."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own form
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._num_events = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()
        line = event.start_mark.line + 1
        self._depth += 1
        self._num_events += 1
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise YamlProblem(
                f"tag {shown(tag)} is not allowed; write the value without a tag", line
            )
        if self._depth > MOST_DEPTH:
            raise YamlProblem(f"is nested deeper than {MOST_DEPTH} levels; write it flatter", line)
        if self._num_events > MOST_NODES:
            raise YamlProblem(f"has more than {MOST_NODES:,} values; write it shorter", line)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _not_yaml(error: yaml.YAMLError) -> YamlProblem:
    mark = getattr(error, "problem_mark", None)
    said = [getattr(error, "context", None), getattr(error, "problem", None)]
    words = ", ".join(part for part in said if part) or " ".join(str(error).split())
    return YamlProblem(f"not YAML: {cut(words, 200)}", None if mark is None else mark.line + 1)


def _num_nodes(node: yaml.Node, counted: dict[int, int]) -> int:
    """Nodes below and with this one, as if no alias were shared. Raises YamlProblem for one that
    holds itself."""
    known = counted.get(id(node))
    if known == 0:
        raise YamlProblem("an alias holds itself; write the value out", node.start_mark.line + 1)
    if known is not None:
        return known
    counted[id(node)] = 0
    total = 1 + sum(_num_nodes(child, counted) for child in _children(node))
    counted[id(node)] = total
    return total


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _value(loader: _Loader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node)
    return _scalar(loader, cast(yaml.ScalarNode, node))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    line = node.start_mark.line + 1
    try:
        loader.flatten_mapping(node)  # puts what `<<` names into its place
    except yaml.YAMLError as error:
        raise _not_yaml(error) from None
    tree: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise YamlProblem("a key is a list or a mapping, must be text", line)
        tree[_text(key)] = _value(loader, value)
    return tree


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> Any:
    line = node.start_mark.line + 1
    is_whole = node.tag == "tag:yaml.org,2002:int"
    if is_whole and len(node.value) > MOST_DIGITS:
        raise YamlProblem(
            f"a number of {len(node.value):,} digits, allowed are {MOST_DIGITS}", line
        )
    if node.tag == "tag:yaml.org,2002:str":
        return _text(node)
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError):
        raise YamlProblem(
            f"{shown(node.value)} is no number; quote it if it is text", line
        ) from None


def _text(node: yaml.ScalarNode) -> str:
    """Raises YamlProblem for text that no UTF-8 file can hold, such as "\\ud800"."""
    try:
        node.value.encode("utf-8")
    except UnicodeEncodeError:
        raise YamlProblem(
            f"{shown(node.value)} holds half of a surrogate pair, which is no character",
            node.start_mark.line + 1,
        ) from None
    return node.value
