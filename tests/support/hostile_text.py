"""A seed -> a damaged document: every kind of node, key and scalar replaced, removed, doubled, renamed, wrapped or nested; then bytes."""

import json
import random
from collections.abc import Callable
from typing import Any

Path = tuple[str | int, ...]


class Raw(str):
    """Written into YAML as it stands."""


SCALARS: tuple[Any, ...] = (
    *(
        "",
        " ",
        "x" * 500,
        "a\x1b[2Jb",
        "\u202eabc",
        "é日本語",
        "null",
        "~",
        "../../etc",
        "s3://k:s@b/x?token=1#f",
        "http://[x",
        "a\\b",
        "{{ 7*7 }}",
    ),
    *(0, -1, 1, 2**31, 2**63, 2**64, 10**39, -(10**39), 1.5, 1e308, -1e308, 5e-324, True, False, None),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": {"c": 1}}}, [1, "a", None, {}]),
)
RAWS = (
    *("2024-13-45", "2024-02-30", "2024-01-01", "12:30:99", "190:20:30", "0o17", "017", "0b1", "0b_", "0x_", "0x1F", "1_000", "_", "+_"),
    *(".inf", "-.inf", ".nan", "1e999", "1.0e+999", "9" * 5000, "0x" + "f" * 5000, "1" * 39, "yes", "no", "on", "off", "~", "=", "<<", "-"),
    *("!!bool maybe", "!!timestamp soon", "!!binary /w==", "!!python/object/apply:os.system [true]", "!!set {a}", "!x y", "! z", "!!int x"),
    *("&a [*a]", "&a {k: *a}", "*missing", "&b x", '"\\ud800"', '"\\U00110000"', '"\\x00"', '"\\e[2J"', "'", '"', "|\n  a\n  b", ">-\n  c"),
    *("{a: 1, a: 2}", "{? [a]: b}", "{[a, b]: c}", "{2024-01-01: d}", "{null: 1, 1: 2, true: 3}", "{<<: 5}", "{<<: {a: 1}}"),
    *("{<<: [1, 2]}", "@x", "`x`", "%x", "# only a comment", "--- a", "...", "\t", "- - -", "? "),
    *("[" * 60 + "]" * 60, "{a: " * 60 + "1" + "}" * 60, "[" * 300, "[&c [1,2,3],*c,*c]", "a\x00b", "a\x1bb", "\ufeff", "\u2028"),
    *("[" + "x," * 3000 + "]", "{" + ",".join(f"k{n}: 1" for n in range(200)) + "}"),
)
LETTERS = ("", "\x00", "\n", "\t", ":", "{", "}", "[", "]", "&a ", "*a", "!", "!!", "- ", "? ", "#", "%", "'", '"', "|", "\ud800")
KEYS = ("", "x", "epoch", "Name", "a.b", "\x1b[31m", "aws_secret_access_key", "k" * 300, "<<", "0", "true", "日本", "__class__", "__init__")


def damaged(tree: Any, chance: random.Random) -> str:
    """The tree as YAML after one to three changes to its nodes, and in a third of all cases one to its letters."""
    for _ in range(chance.randint(1, 3)):
        tree = _changed(tree, chance)
    text = _document(tree)
    return _with_other_letters(text, chance) if chance.random() < 1 / 3 else text


def damaged_override(tree: Any, chance: random.Random) -> str:
    """An `a.b=value`, of a field that the tree has or of none, with a value that it may have or may not."""
    dotted = ".".join(map(str, chance.choice(_places(tree))))
    name = chance.choice((dotted, dotted, f"{dotted}.{chance.choice(KEYS)}", chance.choice(KEYS)))
    text = f"{name}={_flow(_hostile(chance))}"
    return _with_other_letters(text, chance) if chance.random() < 1 / 4 else text


def damaged_json(tree: Any, chance: random.Random) -> bytes:
    """As `damaged`, of a JSON document."""
    for _ in range(chance.randint(1, 3)):
        tree = _changed(tree, chance)
    text = json.dumps(tree, default=str, ensure_ascii=chance.random() < 0.5)
    text = _with_other_letters(text, chance) if chance.random() < 1 / 3 else text
    return text.encode("utf-8", "surrogatepass")


def _hostile(chance: random.Random) -> Any:
    return Raw(chance.choice(RAWS)) if chance.random() < 0.6 else chance.choice(SCALARS)


def _changed(tree: Any, chance: random.Random) -> Any:
    place = chance.choice(_places(tree))
    change: Callable[[Any], Any] = chance.choice(
        (
            lambda _: _hostile(chance),
            lambda _: _hostile(chance),
            lambda node: [node],
            lambda node: {chance.choice(KEYS): node},
            lambda node: _nested(node, chance.choice((10, 49, 51, 120))),
            lambda node: _with_key(node, chance.choice(KEYS), _hostile(chance)),
            lambda node: _without_one(node, chance),
            lambda node: _renamed(node, chance),
            lambda node: node * 3 if isinstance(node, (str, list)) else node,
        )
    )
    return _replaced(tree, place, change)


def _places(tree: Any, at: Path = ()) -> list[Path]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(place for key, item in items for place in _places(item, (*at, key)))]


def _replaced(tree: Any, place: Path, change: Callable[[Any], Any]) -> Any:
    if not place:
        return change(tree)
    key, *rest = place
    if isinstance(tree, dict):
        return {each: _replaced(item, tuple(rest), change) if each == key else item for each, item in tree.items()}
    return [_replaced(item, tuple(rest), change) if index == key else item for index, item in enumerate(tree)]


def _nested(node: Any, depth: int) -> Any:
    for _ in range(depth):
        node = {"a": node}
    return node


def _with_key(node: Any, key: str, value: Any) -> Any:
    return {**node, key: value} if isinstance(node, dict) else node


def _without_one(node: Any, chance: random.Random) -> Any:
    if not isinstance(node, dict) or not node:
        return None
    gone = chance.choice(list(node))
    return {key: value for key, value in node.items() if key != gone}


def _renamed(node: Any, chance: random.Random) -> Any:
    if not isinstance(node, dict) or not node:
        return node
    old, new = chance.choice(list(node)), chance.choice(KEYS)
    return {new if key == old else key: value for key, value in node.items()}


def _document(tree: Any) -> str:
    if not isinstance(tree, dict):
        return _flow(tree)
    return "".join(f"{_key(key)}: {_flow(value)}\n" for key, value in tree.items())


def _flow(node: Any) -> str:
    if isinstance(node, Raw):
        return node
    if isinstance(node, dict):
        return "{" + ", ".join(f"{_key(key)}: {_flow(value)}" for key, value in node.items()) + "}"
    if isinstance(node, (list, tuple)):
        return "[" + ", ".join(map(_flow, node)) + "]"
    return json.dumps(node)


def _key(key: str) -> str:
    return key if key.isidentifier() else json.dumps(key)


def _with_other_letters(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    length = chance.randint(1, 8)
    inserted = chance.choice(LETTERS)
    if chance.random() < 0.1:
        return text[:at]
    return text[:at] + inserted + text[at + chance.choice((0, length)) :]
