"""The forms in which conversations are published, recognised by their keys, each -> turns as the chat APIs write them.

A form names its columns, and for each column the keys under which published data sets have it; `data.columns` names
another key. The first form of the list whose needed columns a record has is the one it is read as.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.prepare_dataset.records.conversations import kind_of

Values = Mapping[str, Any]
"""Column of the form -> its value in a record; null, empty text and empty lists are left out."""

_MESSAGES = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "prompter": "user",
}
"""Names of roles in ShareGPT's form and OpenAssistant's."""


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
    """Kinds of value that a needed column must have for the form to be recognised; text unless named."""
    never_with: tuple[str, ...] = ()
    """Keys of a record that is of another form, whatever their values."""

    def values(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> Values:
        found: dict[str, Any] = {}
        for name, keys in self.columns.items():
            named = (columns[name],) if name in columns else keys
            given = (record[key] for key in named if record.get(key) not in (None, "", []))
            value = next(given, None)
            if value is not None:
                found[name] = value
        return found

    def has_keys(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
        """Whether each needed column is there, be it empty."""
        if any(key in record for key in self.never_with):
            return False
        keys = ((columns[name],) if name in columns else self.columns[name] for name in self.needed)
        return all(any(key in record for key in each) for each in keys)

    def fits(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
        values = self.values(record, columns)
        if any(key in record and key not in columns.values() for key in self.never_with):
            return False
        return all(isinstance(values.get(name), self.needed_kinds.get(name, (str,))) for name in self.needed)


def _messages(values: Values) -> Turns:
    turns = values.get("messages")
    if isinstance(turns, list) and turns and isinstance(turns[0], dict) and "from" in turns[0] and "role" not in turns[0]:
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
    role = _SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker
    return {**rest, "role": role, "content": turn.get("value")}


def _written_calls(text: Any) -> Any:
    """ShareGPT's `function_call` turns hold one call, or a list of them, as JSON text."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text
    return found if isinstance(found, list) else [found]


def _alpaca(values: Values) -> Turns:
    asked = values["instruction"]
    if isinstance(values.get("input"), str) and values["input"].strip():
        asked = f"{asked}\n\n{values['input']}"
    turns = [{"role": "system", "content": values["system"]}] if "system" in values else []
    for pair in values.get("history", ()):
        if not isinstance(pair, list) or len(pair) != 2:
            return Turns([*turns, pair])
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return Turns([*turns, {"role": "user", "content": asked}, {"role": "assistant", "content": values.get("output")}])


def _prompt_completion(values: Values) -> Turns:
    prompt, completion = values["prompt"], values["completion"]
    turns = [{"role": "system", "content": values["system"]}] if "system" in values else []
    turns += _context(prompt) if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    answers = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
    return Turns([*turns, *answers], values.get("tools"))


def _context(prompt: Sequence[Any]) -> list[Any]:
    """The turns of a prompt: an assistant's turns in it are read and not trained on."""
    return [turn | {"train": False} if isinstance(turn, dict) and turn.get("role") == "assistant" else turn for turn in prompt]


def _oasst_tree(values: Values) -> Turns:
    """The path of the best ranked replies, up to the last one by the assistant."""
    turns: list[dict[str, Any]] = []
    node = values["prompt"]
    while isinstance(node, dict):
        role = node.get("role")
        turns.append({"role": _SPEAKERS.get(role, role) if isinstance(role, str) else role, "content": node.get("text")})
        replies = [reply for reply in node.get("replies") or () if isinstance(reply, dict) and not reply.get("deleted")]
        node = min(replies, key=_rank, default=None)
    while turns and turns[-1]["role"] == "user":
        turns.pop()
    return Turns(turns)


def _rank(reply: Mapping[str, Any]) -> float:
    rank = reply.get("rank")
    return rank if isinstance(rank, (int, float)) else float("inf")


def _text(values: Values) -> Text:
    return Text(values["text"])


def _tokens(values: Values) -> Tokens:
    return Tokens(values["input_ids"], values.get("labels"), values.get("attention_mask"))


_LONGER_FORMS = (
    Form("messages", {"messages": ("messages",), "tools": ("tools", "functions")}, ("messages",), _messages, {"messages": (list,)}),
    Form(
        "sharegpt",
        {"conversations": ("conversations", "conversation"), "system": ("system", "system_prompt"), "tools": ("tools",)},
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
    ),
    Form("ichikara", {"instruction": ("text",), "output": ("output",)}, ("instruction", "output"), _alpaca),
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
_NO_TEXT = {key for form in _LONGER_FORMS for name in form.needed for key in form.columns[name]} - {"text"}
FORMS = (
    *_LONGER_FORMS,
    Form("text", {"text": ("text",)}, ("text",), _text, never_with=("parent_id", "role", *sorted(_NO_TEXT))),
)
_ALSO_READ = ("documents", "label", "parent_id", "role")
"""Keys that no form reads, and that decide about a record."""
FORM_NAMES = tuple(form.name for form in FORMS)


def form_named(name: str) -> Form:
    return next(form for form in FORMS if form.name == name)


def recognised(record: Mapping[str, Any], columns: Mapping[str, str]) -> Form | None:
    """The form of a record, by its keys and the kinds of their values."""
    return next((form for form in FORMS if form.fits(record, columns)), None)


def nearest(record: Mapping[str, Any], columns: Mapping[str, str]) -> Form | None:
    """The form whose needed keys a record has, of which some are empty."""
    return next((form for form in FORMS if form.has_keys(record, columns)), None)


def read_keys(keys: Sequence[str], columns: Mapping[str, str]) -> set[str]:
    """Of the columns of a file, those that are looked at where its records are read; all of them where they are of no form."""
    if nearest(dict.fromkeys(keys), columns) is None:
        return set(keys)
    named = {key for form in FORMS for names in form.columns.values() for key in names}
    return set(keys) & {*named, *columns.values(), *_ALSO_READ}


def unknown_form(record: Mapping[str, Any]) -> str:
    """What a record of no known form looks like, and the YAML to write for it."""
    if not record:
        return "an object without keys is no conversation"
    found = ", ".join(f"{str(key)[:40]!r} ({kind_of(value)})" for key, value in list(record.items())[:12])
    return f"unknown form: the record has {found}. Fix: {_advice(record)}"


def _advice(record: Mapping[str, Any]) -> str:
    if "parent_id" in record and "text" in record:
        return "these are single messages of OpenAssistant's trees; take the published trees, whose records have prompt and replies"
    if isinstance(record.get("chosen"), str) and "rejected" in record:
        return "pairs of a better and a worse text are not trained on; write records of the better ones as prompt and completion"
    turns = next((key for key, value in record.items() if isinstance(value, list) and value and isinstance(value[0], dict)), None)
    if turns is not None:
        return f"write, with the right key, data: {{format: messages, columns: {{messages: {turns}}}}}"
    texts = [key for key, value in record.items() if isinstance(value, str)]
    longest = sorted(texts, key=lambda key: -len(record[key]))[:2]
    if len(longest) == 2:
        prompt, completion = (key for key in texts if key in longest)
        pair = f"data: {{format: prompt_completion, columns: {{prompt: {prompt}, completion: {completion}}}}}"
        return f"write, with the right keys, {pair}" + ("; or data: {format: text} to train on text alone" if "text" in texts else "")
    if texts:
        return f"to train on all of it, write data: {{format: text, columns: {{text: {longest[0]}}}}}; or write records such as {_MESSAGES}"
    return f"write records such as {_MESSAGES}"


def missing_columns(form: Form, record: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """What a record lacks of the form that it is read as, if it lacks something."""
    values = form.values(record, columns)
    lacking = [name for name in form.needed if name not in values]
    if not lacking:
        return None
    keys = {name: (columns[name],) if name in columns else form.columns[name] for name in lacking}
    wanted = "; ".join(" or ".join(names) for names in keys.values())
    return f"{wanted}: missing or empty, as {form.name} needs it; found keys {', '.join(map(str, record)) or 'none'}"
