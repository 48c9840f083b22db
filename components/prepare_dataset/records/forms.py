"""The forms in which conversations are published, recognised by their keys, each -> turns as the
chat APIs write them.

A form names its columns, and for each column the keys under which published data sets have it;
`data.columns` names another key. Which form a file is read as is decided by its first records
(recognition.py).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.prepare_dataset.records.conversations import known_role

Values = Mapping[str, Any]
"""Column of the form -> its value in a record; null, empty text and empty lists are left out."""


@dataclass(frozen=True)
class Turns:
    """What a form makes of a record; checked by read_conversation."""

    turns: Any
    tools: Any = None


@dataclass(frozen=True)
class Text:
    """A text without turns."""

    text: Any


@dataclass(frozen=True)
class Tokens:
    """A row that was tokenised elsewhere."""

    ids: Any
    labels: Any
    mask: Any


@dataclass(frozen=True)
class Form:
    name: str
    columns: Mapping[str, tuple[str, ...]]
    """Column -> the keys it is known by."""
    needed: tuple[str, ...]
    read: Callable[[Values], Turns | Text | Tokens]
    needed_kinds: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    """Kinds of value that a needed column must have for the form to be recognised; text unless
    named."""
    never_with: tuple[str, ...] = ()
    """Keys of a record that is of another form, whatever their values."""
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    """Needed column -> the column whose text is taken where the needed one is absent."""

    def values(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> Values:
        found = self.own_values(record, columns)
        for name, other in self.stand_ins.items():
            if name not in found and str(found.get(other, "")).strip():
                found[name] = found.pop(other)
        return found

    def own_values(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
        """The values without stand-ins."""
        found: dict[str, Any] = {}
        for name, keys in self.columns.items():
            if name in columns:
                named = (columns[name],)
            else:
                named = keys
            given = (record[key] for key in named if record.get(key) not in (None, "", []))
            value = next(given, None)
            if value is not None:
                found[name] = value
        return found

    def has_keys(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
        """Whether each needed column is there, be it empty."""
        if self.foreign_keys(record, columns):
            return False
        keys = ((columns[name],) if name in columns else self.columns[name] for name in self.needed)
        return all(any(key in record for key in each) for each in keys)

    def fits(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
        """Whether the record can be read as this form."""
        return not self.foreign_keys(record, columns) and self.has_kinds(
            self.values(record, columns)
        )

    def foreign_keys(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
        """Keys of the record that say that it is of another form."""
        read = columns.values()
        return [key for key in self.never_with if key in record and key not in read]

    def has_kinds(self, values: Values) -> bool:
        """Whether each needed column has a value of a kind that the form reads."""
        kinds = self.needed_kinds
        return all(isinstance(values.get(name), kinds.get(name, (str,))) for name in self.needed)


def _messages(values: Values) -> Turns:
    turns = values.get("messages")
    if (
        isinstance(turns, list)
        and turns
        and isinstance(turns[0], dict)
        and "from" in turns[0]
        and "role" not in turns[0]
    ):
        return _sharegpt({**values, "conversations": turns})
    return Turns(turns, values.get("tools"))


def _sharegpt(values: Values) -> Turns:
    said = values["conversations"]
    turns = [_spoken(turn) if isinstance(turn, dict) else turn for turn in said]
    if "system" in values:
        turns = [{"role": "system", "content": values["system"]}, *turns]
    return Turns(turns, values.get("tools"))


def _spoken(turn: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if "from" not in turn:
        return rest
    speaker = turn["from"]
    if speaker == "function_call":
        return {**rest, "role": "assistant", "tool_calls": _written_calls(turn.get("value"))}
    return {**rest, "role": speaker, "content": turn.get("value")}


def _written_calls(text: Any) -> Any:
    """ShareGPT's `function_call` turns hold one call, or a list of them, as JSON text."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text
    if isinstance(found, list):
        return found
    return [found]


def _alpaca(values: Values) -> Turns:
    asked = values["instruction"]
    if isinstance(values.get("input"), str) and values["input"].strip():
        asked = f"{asked}\n\n{values['input']}"
    if "system" in values:
        turns = [{"role": "system", "content": values["system"]}]
    else:
        turns = []
    for pair in values.get("history", ()):
        if not isinstance(pair, list) or len(pair) != 2:
            return Turns([*turns, pair])
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return Turns(
        [
            *turns,
            {"role": "user", "content": asked},
            {"role": "assistant", "content": values.get("output")},
        ]
    )


def _prompt_completion(values: Values) -> Turns:
    prompt, completion = values["prompt"], values["completion"]
    if "system" in values:
        turns = [{"role": "system", "content": values["system"]}]
    else:
        turns = []
    turns += _context(prompt) if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if isinstance(completion, list):
        answers = completion
    else:
        answers = [{"role": "assistant", "content": completion}]
    return Turns([*turns, *answers], values.get("tools"))


def _context(prompt: Sequence[Any]) -> list[Any]:
    """The turns of a prompt: an assistant's turns in it are read and not trained on."""
    return [
        turn | {"train": False}
        if isinstance(turn, dict) and known_role(turn.get("role")) == "assistant"
        else turn
        for turn in prompt
    ]


def _oasst_tree(values: Values) -> Turns:
    """The path of the best ranked replies, up to the last one by the assistant."""
    turns: list[dict[str, Any]] = []
    node = values["prompt"]
    while isinstance(node, dict):
        turns.append({"role": known_role(node.get("role")), "content": node.get("text")})
        replies = [
            reply
            for reply in node.get("replies") or ()
            if isinstance(reply, dict) and not reply.get("deleted")
        ]
        node = min(replies, key=_rank, default=None)
    while turns and turns[-1]["role"] == "user":
        turns.pop()
    return Turns(turns)


def _rank(reply: Mapping[str, Any]) -> float:
    rank = reply.get("rank")
    if isinstance(rank, (int, float)):
        return rank
    return float("inf")


def _text(values: Values) -> Text:
    return Text(values["text"])


def _tokens(values: Values) -> Tokens:
    return Tokens(values["input_ids"], values.get("labels"), values.get("attention_mask"))


_LONGER_FORMS = (
    Form(
        "messages",
        {"messages": ("messages",), "tools": ("tools", "functions")},
        ("messages",),
        _messages,
        {"messages": (list,)},
    ),
    Form(
        "sharegpt",
        {
            "conversations": ("conversations", "conversation"),
            "system": ("system", "system_prompt"),
            "tools": ("tools",),
        },
        ("conversations",),
        _sharegpt,
        {"conversations": (list,)},
    ),
    Form("oasst_tree", {"prompt": ("prompt",)}, ("prompt",), _oasst_tree, {"prompt": (dict,)}),
    Form(
        "alpaca",
        {
            "instruction": ("instruction",),
            "input": ("input", "context"),
            "output": ("output", "response"),
            "system": ("system",),
            "history": ("history",),
        },
        ("instruction", "output"),
        _alpaca,
        stand_ins={"instruction": "input"},
    ),
    Form(
        "ichikara",
        {"instruction": ("text",), "output": ("output",)},
        ("instruction", "output"),
        _alpaca,
    ),
    Form(
        "prompt_completion",
        {
            "prompt": ("prompt", "question", "query", "input"),
            "completion": ("completion", "response", "answer", "output"),
            "system": ("system", "system_prompt"),
            "tools": ("tools",),
        },
        ("prompt", "completion"),
        _prompt_completion,
        {"prompt": (str, list), "completion": (str, list)},
    ),
    Form(
        "tokens",
        {"input_ids": ("input_ids",), "labels": ("labels",), "attention_mask": ("attention_mask",)},
        ("input_ids",),
        _tokens,
        {"input_ids": (list,)},
    ),
)
_NO_TEXT = {key for form in _LONGER_FORMS for name in form.needed for key in form.columns[name]} - {
    "text"
}
FORMS = (
    *_LONGER_FORMS,
    Form(
        "text",
        {"text": ("text",)},
        ("text",),
        _text,
        never_with=("parent_id", "role", *sorted(_NO_TEXT)),
    ),
)
_TURNS = {"messages": "messages", "sharegpt": "conversations"}
"""Form -> its column that is a list of turns; a prompt or a completion may be one or a text."""
FORM_NAMES = tuple(form.name for form in FORMS)


def form_named(name: str) -> Form:
    return next(form for form in FORMS if form.name == name)


def turn_keys(form: Form | None, columns: Mapping[str, str]) -> set[str]:
    """Keys of a record under which the form, or any where it is not known yet, has a list of turns
    and nothing else."""
    keys: set[str] = set()
    for each, name in _TURNS.items():
        if form is None or form.name == each:
            keys.update((columns[name],) if name in columns else form_named(each).columns[name])
    return keys
