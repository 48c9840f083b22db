"""A model's chat template and turns -> their text, rendered as transformers 5 does
(utils/chat_template_utils.py, 5.23).

What of the text is trained on is found in samples.py.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

from components.prepare_dataset.records.conversations import Message
from components.shared.errors import DataError, ModelError
from components.shared.spec.named_file import local_file

MOST_CHARACTERS = 32_000_000
"""Of one text: several times the longest row that `data.row_tokens` allows."""

# What a template's own expressions raise beside jinja2's errors, such as `message.content + 1`.
_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    AssertionError,
    RuntimeError,
)


_LOOPS_OVER_PARTS = re.compile(r"for\s+\w+\s+in\s+\w+(\.content|\[['\"]content['\"]\])")

# Around what `{% generation %}` encloses, while marks are asked for; no text of people has them.
_MARK_OPENS, _MARK_CLOSES = "\x02generation\x03", "\x02endgeneration\x03"


class TooMuchText(Exception):
    """A template wrote a text of more than MOST_CHARACTERS."""


@dataclass(frozen=True)
class ChatTemplate:
    """A compiled template, without limits of time and memory: process.py has them."""

    name: str
    """For messages: the file it was read from."""
    text: str
    compiled: jinja2.Template
    special_tokens: Mapping[str, str]
    """bos_token, eos_token and the like, as the template may name them."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """`data.template_args`."""

    @cached_property
    def has_marks(self) -> bool:
        """Whether the template itself marks what an assistant writes, by `{% generation %}`."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self.text) is not None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of the turns. Raises DataError when the template refuses them or fails."""
        turns = turns_of(self.text, messages)
        variables = {**self.special_tokens, **self.arguments}
        try:
            return self.compiled.render(
                messages=turns,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **variables,
            )
        except _FAILURES as error:
            raise DataError(
                f"{self.name} cannot render the first {len(turns)} turns: {_one_line(error)}; "
                "correct the record, or set data.chat_template to another template"
            ) from None

    def marks(
        self, messages: Sequence[Message], *, tools: list[dict[str, Any]] | None = None
    ) -> list[tuple[int, int]]:
        """[start, end) in characters of what the template marks in the text that `render` gives."""
        environment = self.compiled.environment
        _set_marking(environment, marking=True)
        try:
            marked = self.render(messages, tools=tools)
        finally:
            _set_marking(environment, marking=False)
        return _marked_spans(marked)


def turns_of(template_text: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The turns as that template gets them: those of vision models take the content as a list of
    parts alone."""
    takes_parts = _takes_parts(template_text)
    return [_turn(message, takes_parts=takes_parts) for message in messages]


@cache
def _takes_parts(template_text: str) -> bool:
    return _LOOPS_OVER_PARTS.search(template_text) is not None and " is string" not in template_text


def _turn(message: Message, *, takes_parts: bool) -> dict[str, Any]:
    if takes_parts:
        content = [{"type": "text", "text": message.content}]
    else:
        content = message.content
    return {"role": message.role, "content": content, **(message.fields or {})}


def _marked_spans(marked: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    position, start = 0, 0
    for piece in re.split(f"({_MARK_OPENS}|{_MARK_CLOSES})", marked):
        if piece == _MARK_OPENS:
            start = position
        elif piece == _MARK_CLOSES:
            spans.append((start, position))
        else:
            position += len(piece)
    return spans


def read_template(
    folder: Path, chosen: str, tokenizer_config: Mapping[str, Any]
) -> tuple[str, str]:
    """(name, text) of the template that `data.chat_template` chose: a Jinja file, or with `model`
    what the folder brings.

    In a model's folder chat_template.jinja comes before tokenizer_config.json, as in transformers.

    Raises:
        ModelError: the model brings none, or several and none named `default`. DataError: the file
            cannot be read.
    """
    if chosen != "model":
        with local_file(chosen) as path:
            return chosen, _read_file(path)
    own_file = folder / "chat_template.jinja"
    if own_file.is_file():
        return str(own_file), _read_file(own_file)
    config_file, found = folder / "tokenizer_config.json", tokenizer_config.get("chat_template")
    if isinstance(found, list):
        named = {
            entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)
        }
        if "default" not in named:
            raise ModelError(
                f"{config_file}: chat_template: found {', '.join(map(str, named)) or 'none'}, and "
                "none named default; set data.chat_template to a Jinja file"
            )
        found = named["default"]
    if not isinstance(found, str) or not found:
        raise ModelError(
            f"{folder}: the model brings no chat template; set data.chat_template to a Jinja file: "
            "for a base model specs/templates/plain.jinja, alpaca.jinja or alpaca-ja.jinja, for a "
            "chat model that of its makers, such as llama-2.jinja"
        )
    return str(config_file), found


def compile_template(
    name: str,
    text: str,
    special_tokens: Mapping[str, str],
    *,
    now: datetime,
    arguments: Mapping[str, Any] | None = None,
) -> ChatTemplate:
    """The template, ready to render. `now` is what strftime_now gives: one moment for all
    conversations.

    Raises:
        DataError: the text is no Jinja template.
    """
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_raise_exception,
        strftime_now=now.strftime,
        dict=_PlainDict(),
        namespace=_GuardedNamespace,
    )
    try:
        compiled = environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"{name}:{error.lineno}: not a Jinja template: {_one_line(error)}"
        ) from None
    except (SyntaxError, *_FAILURES) as error:  # of what Jinja made of it: too many nested blocks
        raise DataError(f"{name}: not a Jinja template: {_one_line(error)}") from None
    compiled.globals = dict(compiled.globals)  # each text copies them: 5 times faster of a dict
    return ChatTemplate(name, text, compiled, special_tokens, arguments or {})


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"data.chat_template: no such file {str(path)!r}; allowed: model, or the path of a "
            "Jinja file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data.chat_template: {str(path)!r} cannot be read: {_one_line(error)}"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML; the parameters are those that templates may pass."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _bounded_join(pieces: Iterable[str]) -> str:
    """Raises TooMuchText before the text is there."""
    texts = list(pieces)
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise TooMuchText(f"more than {MOST_CHARACTERS:,} characters")
    return "".join(texts)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Joins the pieces of a text within the limit."""

    concat = staticmethod(_bounded_join)


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` renders what is inside, between marks while they are
    asked for."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's interface

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        environment.extend(marks_generation=False)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_enclosed"), [], [], body).set_lineno(line)

    def _enclosed(self, caller: Callable[[], str]) -> str:
        text = caller()
        if _marking(self.environment):
            return f"{_MARK_OPENS}{text}{_MARK_CLOSES}"
        return text


def _marking(environment: jinja2.Environment) -> bool:
    return environment.__dict__["marks_generation"]


def _set_marking(environment: jinja2.Environment, *, marking: bool) -> None:
    environment.__dict__["marks_generation"] = marking


class _PlainDict:
    """`dict(…)` for templates without the type itself: what comes from a hub gets no way to
    Python's classes."""

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
        raise jinja2.exceptions.SecurityError(
            f"a namespace attribute cannot begin with an underscore: {name!r}"
        )
