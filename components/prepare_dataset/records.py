"""A JSONL file -> conversations, or every line that is none, each by `file:line`.

A conversation costs about 1 kB of memory beside its text; 100,000 of them are read and checked in about 2 s.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.errors import DataError
from components.shared.named_file import local_file

ROLES = ("system", "user", "assistant")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_SHOWN = 20
_BOM = b"\xef\xbb\xbf"
_FORM = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    where: str
    """`file:line`, for messages to people."""
    messages: tuple[Message, ...]
    digest: bytes
    """sha256 of the messages: equal for conversations that say the same."""


@dataclass(frozen=True)
class RecordFile:
    conversations: tuple[Conversation, ...]
    sha256: str
    """Of the file's bytes, in hex."""


def read_records(*names: str) -> tuple[RecordFile, ...]:
    """The conversations of each file or object, in its order; keys of a record beside `messages` are left unread.

    Raises:
        StoreError: an object cannot be read.
        DataError: a file cannot be read, is empty, or holds lines that are no conversation; the first 20 of all
            files together are shown, and the number of the rest.
    """
    files: list[RecordFile] = []
    problems: list[str] = []
    for name in names:
        sha256 = hashlib.sha256()
        conversations: list[Conversation] = []
        try:
            with local_file(name) as path:
                for number, line in _numbered_lines(path, sha256):
                    found = parse_record(line, f"{name}:{number}")
                    if isinstance(found, Conversation):
                        conversations.append(found)
                    else:
                        problems.extend(found)
        except OSError as error:
            problems.append(_unreadable(Path(name), error))
        else:
            if not conversations and not any(problem.startswith(f"{name}:") for problem in problems):
                problems.append(f"{name}: holds no record; write one conversation a line: {_FORM}")
        files.append(RecordFile(tuple(conversations), sha256.hexdigest()))
    if problems:
        raise DataError(*first_problems(problems))
    return tuple(files)


def first_problems(problems: list[str]) -> list[str]:
    """At most 20 of the problems, and one more line that counts the rest."""
    rest = len(problems) - _SHOWN
    return problems if rest <= 0 else [*problems[:_SHOWN], f"and {rest} more of {len(problems)} problems"]


def parse_record(line: bytes, where: str) -> Conversation | list[str]:
    """The conversation on one line, or everything that is wrong with it."""
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return [f"{where}: not UTF-8 (byte {line[error.start]:#04x} at offset {error.start}); save the file as UTF-8"]
    except json.JSONDecodeError as error:
        return [f"{where}: not JSON ({error.msg} at column {error.colno}); write one JSON object a line"]
    except RecursionError:
        return [f"{where}: not a record: nested too deeply; write {_FORM}"]
    if not isinstance(record, dict):
        return [f"{where}: found {_kind(record)}, must be an object a line, not one JSON list: {_FORM}"]
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        found = f"found {_kind(messages)}" if "messages" in record else f"missing, found keys {', '.join(record) or 'none'}"
        return [f"{where}: messages: {found}, must be a list of turns: {_FORM}"]
    problems = [f"{where}: {problem}" for problem in (*_unread(record), *_turn_problems(messages))]
    if problems:
        return problems
    turns = tuple(Message(turn["role"], turn["content"]) for turn in messages)
    return Conversation(where=where, messages=turns, digest=_digest(turns))


def _numbered_lines(path: Path, sha256: Any) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, numbered from 1, split at line feeds alone: JSON text may hold U+2028."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            sha256.update(line)
            if not line.isspace():
                yield number, (line.removeprefix(_BOM) if number == 1 else line).rstrip(b"\r\n")


def _unread(record: dict[str, Any]) -> Iterable[str]:
    """Keys that other tools give to the chat template: leaving them out would train on another text."""
    return (f"{key}: not supported; remove it from the record" for key in ("tools", "functions", "documents") if record.get(key))


def _turn_problems(turns: list[Any]) -> Iterator[str]:
    for index, turn in enumerate(turns):
        for problem in _problems_of(turn, index):
            yield f"messages[{index}]{problem}"
    if not any(isinstance(turn, dict) and turn.get("role") == "assistant" for turn in turns):
        yield "messages: no assistant turn, so nothing to learn; add one or remove the record"


def _problems_of(turn: Any, index: int) -> Iterator[str]:
    if not isinstance(turn, dict):
        yield f": found {_kind(turn)}, must be an object with role and content"
        return
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        yield f".role: found {role!r}, allowed: {', '.join(ROLES)}"
    elif role == "system" and index > 0:
        yield ".role: a system turn is allowed only first"
    if not isinstance(content, str):
        yield f".content: found {_kind(content)}, must be text"
    elif not content.strip():
        yield ".content: is empty; write it or remove the turn"
    elif _HALF_PAIR.search(content):
        yield ".content: holds half a surrogate pair (\\ud800 to \\udfff), which is no text; mend the escape"
    for key in turn.keys() - {"role", "content"}:
        yield f".{key}: unknown key, allowed: role, content"


def _digest(turns: tuple[Message, ...]) -> bytes:
    return hashlib.sha256(json.dumps([(turn.role, turn.content) for turn in turns]).encode()).digest()


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return f"an empty {'list' if value == [] else 'object'}" if value in ([], {}) else names.get(type(value), "null")


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        near = sorted(str(found) for found in path.parent.glob("*.jsonl"))
        return f"{path}: no such file" + (f"; there are: {', '.join(near[:8])}" if near else "; name a JSONL file that is there")
    if isinstance(error, IsADirectoryError):
        return f"{path}: is a folder, must be one JSONL file"
    return f"{path}: cannot be read: {error.strerror}"
