"""A model's chat template and a conversation -> its text, with the spans that the model learns to write.

Renders as transformers 5 does (utils/chat_template_utils.py, 5.23), so that the text of training is the text of use.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

from components.prepare_dataset.records import Message
from components.shared.errors import DataError, ModelError
from components.shared.named_file import local_file

# What a template's own expressions raise beside jinja2's errors, such as `message.content + 1`.
_FAILURES = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True)
class ChatTemplate:
    name: str
    """For messages: the file it was read from."""
    text: str
    compiled: jinja2.Template
    special_tokens: Mapping[str, str]
    """bos_token, eos_token and the like, as the template may name them."""

    def render(self, messages: tuple[Message, ...], *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation. Raises DataError when the template refuses it or fails."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self.compiled.render(messages=turns, add_generation_prompt=add_generation_prompt, **self.special_tokens)
        except _FAILURES as error:
            raise DataError(
                f"{self.name} cannot render the first {len(turns)} turns: {_one_line(error)}; "
                "mend the record or set data.chat_template to another template"
            ) from None


@dataclass(frozen=True)
class MarkedText:
    text: str
    spans: tuple[tuple[int, int], ...]
    """[start, end) in characters of what each assistant turn adds to its prompt, the end-of-turn token included."""


def read_template(folder: Path, chosen: str, tokenizer_config: Mapping[str, Any]) -> tuple[str, str]:
    """(name, text) of the template that `data.chat_template` chose: a Jinja file, or with `model` what the folder brings.

    In a model's folder chat_template.jinja comes before tokenizer_config.json, as in transformers.

    Raises:
        ModelError: the model brings none, or several and none named `default`. DataError: the file cannot be read.
    """
    if chosen != "model":
        with local_file(chosen) as path:
            return chosen, _read_file(path)
    own_file = folder / "chat_template.jinja"
    if own_file.is_file():
        return str(own_file), _read_file(own_file)
    config_file, found = folder / "tokenizer_config.json", tokenizer_config.get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        if "default" not in named:
            raise ModelError(
                f"{config_file}: chat_template: found {', '.join(map(str, named)) or 'none'}, and none named default; "
                "set data.chat_template to a Jinja file"
            )
        found = named["default"]
    if not isinstance(found, str) or not found:
        raise ModelError(
            f"{folder}: the model brings no chat template; "
            "set data.chat_template to a Jinja file, such as specs/templates/plain.jinja for a base model"
        )
    return str(config_file), found


def compile_template(name: str, text: str, special_tokens: Mapping[str, str], *, now: datetime) -> ChatTemplate:
    """The template, ready to render. `now` is what strftime_now tells: one moment for all conversations.

    Raises:
        DataError: the text is no Jinja template.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise_exception, strftime_now=now.strftime, dict=_PlainDict(), namespace=_GuardedNamespace)
    try:
        return ChatTemplate(name, text, environment.from_string(text), special_tokens)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"{name}:{error.lineno}: not a Jinja template: {_one_line(error)}") from None


def mark_trained(template: ChatTemplate, messages: tuple[Message, ...]) -> MarkedText:
    """The whole conversation's text, with the span of every assistant turn.

    A turn's span runs from the end of its prompt (the turns before, with add_generation_prompt) to the end of the
    turn, without white space that the template puts behind the end-of-turn token.

    Raises:
        DataError: the template refuses the conversation, writes a turn otherwise than its prompt promised (so that
            what is trained would not be what is asked later), or leaves out part of an answer.
    """
    text = template.render(messages)
    last = len(messages) - 1
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = template.render(messages[:index], add_generation_prompt=True)
        through = (text if index == last else template.render(messages[: index + 1])).rstrip()
        if not (text.startswith(through) and through.startswith(prompt)):
            raise DataError(
                f"{template.name} writes assistant turn messages[{index}] otherwise than its prompt begins, or than in the whole "
                "conversation; set data.chat_template to a template that only ever adds text, such as specs/templates/plain.jinja"
            )
        if _letters(message.content) not in _letters(through[len(prompt) :]):
            raise DataError(
                f"{template.name} leaves out part of assistant turn messages[{index}], so it would not be learned; "
                "set data.chat_template to a template that keeps it"
            )
        spans.append((len(prompt), len(through)))
    return MarkedText(text, tuple(spans))


def _letters(text: str) -> str:
    """The text without white space, which templates trim and add at will."""
    return "".join(text.split())


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"data.chat_template: no such file {str(path)!r}; allowed: model, or the path of a Jinja file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.chat_template: {str(path)!r} cannot be read: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Jinja's own filter escapes for HTML; the parameters are those that templates may pass."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` renders what is inside; spans are found by prefixes instead, in any template."""

    tags = {"generation"}  # noqa: RUF012  jinja2's interface

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _PlainDict:
    """`dict(…)` for templates without the type itself: what comes from a hub gets no way to Python's classes."""

    def __call__(self, *args: Any, **fields: Any) -> dict[Any, Any]:
        return dict(*args, **fields)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _GuardedNamespace(jinja2.utils.Namespace):
    """`namespace(…)` whose attributes cannot begin with an underscore, for the same reason."""

    def __init__(*args: Any, **fields: Any) -> None:
        # No parameter named self: `namespace(self=…)` must work, as in jinja2.
        own, *rest = args
        attributes = dict(*rest, **fields)
        for name in attributes:
            _refuse_underscore(name)
        jinja2.utils.Namespace.__init__(own, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace attribute cannot begin with an underscore: {name!r}")
