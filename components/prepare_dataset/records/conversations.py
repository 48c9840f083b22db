"""The turns of one record -> a conversation, or everything that is wrong with them.

Turns are read as the chat APIs write them. A key whose value is null or an empty list counts as
absent: pandas and `datasets` write every column into every record.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
ALIASES = {
    "developer": "system",
    "function": "tool",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "observation": "tool",
}
"""Other names of a role, without regard to capitals: OpenAI's API uses, or used, the first two, and
ShareGPT, OpenAssistant, Gemini and LangChain the others."""

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""transformers 5.23, utils/chat_template_utils.py, _REASONING_FIELDS."""

_WEIGHT_KEYS = ("weight", "train", "trainable", "loss")
_PLAIN_KEYS = {"role", "content"}
_KNOWN_KEYS = frozenset(
    {"role", "content", "tool_calls", "tool_call_id", "name", *REASONING_KEYS, *_WEIGHT_KEYS}
)
_OTHER_MEDIA = ("images", "image", "audio", "video", "videos", "function_call")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: str
    content: str
    trained: bool = True
    """Whether the turn is trained on, if it is an assistant's."""
    fields: dict[str, Any] | None = None
    """What else the chat template gets of the turn: tool_calls, tool_call_id, name,
    reasoning_content, thinking."""

    @property
    def reasoning(self) -> str:
        return (self.fields or {}).get("reasoning_content", "")

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        return (self.fields or {}).get("tool_calls", [])


@dataclass(frozen=True, slots=True)
class Conversation:
    where: str
    """`file:line`, for messages to people."""
    messages: tuple[Message, ...]
    digest: bytes
    """sha256 of the messages: equal for conversations that say the same."""
    tools: list[dict[str, Any]] | None = None
    """Definitions of the tools that the assistant may call, as the chat template gets them."""
    num_empty_system: int = 0
    """System turns without text, which were left out."""
    unread: tuple[str, ...] = ()
    """Keys of turns that nothing reads."""

    @property
    def question(self) -> bytes:
        """sha256 of the first question, white space aside: equal for conversations that begin with
        the same question."""
        if self.messages[0].role == "tokens":
            return self.digest
        asked = next((turn.content for turn in self.messages if turn.role != "system"), "")
        return hashlib.sha256(" ".join(asked.split()).encode()).digest()


def read_conversation(where: str, turns: Any, tools: Any = None) -> Conversation | list[str]:
    """The conversation of these turns, or everything that is wrong with them, without `where`."""
    if not isinstance(turns, list) or not turns:
        return [f"messages: found {kind_of(turns)}, must be a list of turns"]
    problems: list[str] = []
    messages: list[Message] = []
    unread: set[str] = set()
    num_empty_system = 0
    for index, turn in enumerate(turns):
        plain = _plain_message(turn)
        if plain is not None:
            messages.append(plain)
            continue
        found = list(_turn_problems(turn, index))
        problems += [f"messages[{index}]{problem}" for problem in found]
        if found:
            continue
        given = _given(turn)
        if _role(given) == "system" and not _text(given.get("content")).strip():
            num_empty_system += 1
            continue
        unread |= given.keys() - _KNOWN_KEYS
        messages.append(_message(given))
    definitions = _tools(tools, problems)
    problems += _nothing_to_learn(turns)
    if problems:
        return problems
    digest = _digest(messages, definitions)
    return Conversation(
        where, tuple(messages), digest, definitions, num_empty_system, tuple(sorted(unread))
    )


def _plain_message(turn: Any) -> Message | None:
    """The message of a turn with nothing but a role and a text, as most turns are: it needs no
    further check. None of any other turn.
    """
    if not isinstance(turn, dict) or turn.keys() != _PLAIN_KEYS:
        return None
    role, content = turn["role"], turn["content"]
    if role not in ("user", "assistant") or not isinstance(content, str):
        return None
    if not content or content.isspace() or has_half_pair(content):
        return None
    return Message(role, content)


def has_half_pair(text: str) -> bool:
    """Whether a surrogate (\\ud800 to \\udfff) is in the text: UTF-8 has bytes for all other
    characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def kind_of(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    if value == [] or value == {}:
        if value == []:
            return "an empty list"
        return "an empty object"
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _given(turn: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in turn.items() if value is not None and value != []}


def _role(given: dict[str, Any]) -> Any:
    return known_role(given.get("role"))


def known_role(role: Any) -> Any:
    """The role that a name stands for; what is no name of one is given back."""
    if not isinstance(role, str) or role in ROLES:
        return role
    name = ALIASES.get(role.lower(), role.lower())
    if name in ROLES:
        return name
    return role


def _text(content: Any) -> str:
    """Text, or the text of content parts, one behind the other."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""


def _turn_problems(turn: Any, index: int) -> Iterator[str]:
    if not isinstance(turn, dict):
        yield f": found {kind_of(turn)}, must be an object with role and content"
        return
    given = _given(turn)
    role = _role(given)
    if role not in ROLES:
        yield (
            f".role: found {given.get('role')!r}, allowed: {', '.join(ROLES)}. Fix: write one of "
            "them in the record"
        )
    elif role == "system" and index > 0:
        yield ".role: a system turn is allowed only first"
    yield from _content_problems(given, role)
    yield from _tool_call_problems(given.get("tool_calls", []))
    for key in _OTHER_MEDIA:
        if key in given:
            yield f".{key}: not supported; remove it from the turn"
    for key in (*REASONING_KEYS, "name", "tool_call_id"):
        if not isinstance(given.get(key, ""), str):
            yield f".{key}: found {kind_of(given[key])}, must be text"
    for key in _WEIGHT_KEYS:
        if given.get(key, 1) not in (0, 1):
            yield f".{key}: found {given[key]!r}, must be 0 or false (not trained on), or 1 or true"


def _content_problems(given: dict[str, Any], role: Any) -> Iterator[str]:
    content = given.get("content")
    says_otherwise = role == "assistant" and (given.get("tool_calls") or _reasoning(given))
    if content is None:
        if role not in ("system", "tool") and not says_otherwise:
            yield ".content: found null, must be text"
        return
    if isinstance(content, list):
        other = [part for part in content if not _is_text_part(part)]
        if other:
            if isinstance(other[0], dict):
                found = other[0].get("type")
            else:
                found = None
            yield (
                f".content: found a part of type {found!r}, must be text, or parts of type text "
                "with a text"
            )
            return
    elif not isinstance(content, str):
        yield f".content: found {kind_of(content)}, must be text"
        return
    text = _text(content)
    if not text.strip() and role not in ("system", "tool") and not says_otherwise:
        yield ".content: is empty; write it or remove the turn"
    elif has_half_pair(text):
        yield (
            ".content: holds half a surrogate pair (\\ud800 to \\udfff), which is no text; correct "
            "the escape"
        )


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.get("type", "text") == "text"
        and isinstance(part.get("text"), str)
    )


def _tool_call_problems(calls: Any) -> Iterator[str]:
    if not isinstance(calls, list):
        yield f".tool_calls: found {kind_of(calls)}, must be a list of calls"
        return
    for index, call in enumerate(calls):
        if isinstance(call, dict):
            function = call.get("function", call)
        else:
            function = None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            yield (
                f".tool_calls[{index}]: found {kind_of(call)}, must be an object with "
                "function.name and function.arguments"
            )


def _message(given: dict[str, Any]) -> Message:
    fields = {key: given[key] for key in ("tool_call_id", "name") if key in given}
    if "tool_calls" in given:
        fields["tool_calls"] = [_call(call) for call in given["tool_calls"]]
    reasoning = _reasoning(given)
    if reasoning:  # under both names, as transformers does: gpt-oss reads `thinking`
        fields |= {"reasoning_content": reasoning, "thinking": reasoning}
    return Message(_role(given), _text(given.get("content")), _is_trained(given), fields or None)


def _reasoning(given: dict[str, Any]) -> str:
    return next(
        (given[key] for key in REASONING_KEYS if isinstance(given.get(key), str) and given[key]), ""
    )


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """The call as transformers' docs have it: a function with its arguments as an object, where
    they were JSON text."""
    function = dict(call.get("function", call))
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        function["arguments"] = _object_in(arguments)
    known = {key: call[key] for key in ("id",) if key in call}
    return {**known, "type": "function", "function": function}


def _object_in(text: str) -> Any:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    if isinstance(found, dict):
        return found
    return text


def _tools(tools: Any, problems: list[str]) -> list[dict[str, Any]] | None:
    """The tool definitions, each as `{type: function, function: …}`; what is wrong with them is
    added to `problems`."""
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            problems.append("tools: found text that is no JSON, must be a list of tool definitions")
            return None
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        problems.append(f"tools: found {kind_of(tools)}, must be a list of tool definitions")
        return None
    return [
        tool if "function" in tool else {"type": "function", "function": tool} for tool in tools
    ]


def _nothing_to_learn(turns: list[Any]) -> Iterator[str]:
    said = [turn for turn in turns if isinstance(turn, dict)]
    answers = [turn for turn in said if _role(turn) == "assistant"]
    if any(_role(turn) not in ROLES for turn in said):
        return  # which of them is the assistant's is not known
    if not answers:
        yield "messages: no assistant turn, so nothing to learn; add one or remove the record"
    elif not any(_is_trained(_given(turn)) for turn in answers):
        yield (
            "messages: every assistant turn has weight 0 (or train: false), so nothing to learn; "
            "remove the record"
        )


def _is_trained(given: dict[str, Any]) -> bool:
    return all(given.get(key, 1) for key in _WEIGHT_KEYS)


def _digest(messages: list[Message], tools: list[dict[str, Any]] | None) -> bytes:
    """Plain conversations keep the digest that they had before turns could carry more than role and
    content."""
    said = [_said(message) for message in messages]
    if tools is None:
        content = said
    else:
        content = [said, tools]
    return hashlib.sha256(json.dumps(content).encode()).digest()


def _said(message: Message) -> tuple[Any, ...]:
    plain = (message.role, message.content)
    if message.trained and message.fields is None:
        return plain
    return (*plain, message.trained, message.fields)
