import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.records import RecordFile, RecordSource, read_records
from components.shared.errors import DataError

GOOD = (
    '{"messages": [{"role": "user", "content": "港は？"}, '
    '{"role": "assistant", "content": "青です。"}]}'
)


def _turns(*turns: object) -> str:
    return json.dumps({"messages": turns})


def _user(content: object = "q") -> dict[str, object]:
    return {"role": "user", "content": content}


def _assistant(content: object = "a") -> dict[str, object]:
    return {"role": "assistant", "content": content}


def _read(path: Path, **how: Any) -> RecordFile:
    (file,) = read_records(RecordSource(str(path), **how))
    return file


def _conversation(tmp_path: Path, record: str) -> Conversation:
    path = tmp_path / "one.jsonl"
    path.write_text(record + "\n", encoding="utf-8")
    (found,) = _read(path).conversations
    return found


def _problems(tmp_path: Path, content: bytes) -> tuple[str, ...]:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        _read(path)
    return tuple(problem.removeprefix(str(tmp_path) + "/") for problem in raised.value.problems)


def test_records_keep_their_order_their_text_and_their_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    content = f"\n{GOOD}\r\n\n{_turns(_user(), _assistant(), _user())}\n".encode()
    path.write_bytes(content)
    file = _read(path)
    assert [found.where for found in file.conversations] == [f"{path}:2", f"{path}:4"]
    assert file.conversations[0].messages[1].content == "青です。"
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert len(_read(path).conversations) == 1


def test_a_line_separator_inside_text_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(GOOD.replace("港", "港\u2028") + "\n", encoding="utf-8")
    assert _read(path).conversations[0].messages[0].content == "港\u2028は？"


def test_keys_beside_messages_are_left_unread(tmp_path: Path) -> None:
    assert len(_conversation(tmp_path, '{"id": 7, ' + GOOD[1:]).messages) == 2


def test_a_column_named_documents_is_left_unread_in_a_form_without_documents(
    tmp_path: Path,
) -> None:
    record = {"instruction": "q", "output": "a", "documents": ["d"]}
    assert [
        message.content for message in _conversation(tmp_path, json.dumps(record)).messages
    ] == ["q", "a"]


def test_digests_are_equal_only_for_conversations_that_say_the_same(tmp_path: Path) -> None:
    records = [GOOD, '{"id": 1, ' + GOOD[1:], GOOD.replace("青", "赤")]
    digests = [_conversation(tmp_path, record).digest for record in records]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("record", "reported"),
    [
        ("[1]", "found a list, must be an object"),
        ("3", "found a number"),
        ("null", "found null"),
        ('{"messages": ', "not JSON (Expecting value at column 14)"),
        ("{}", "messages: missing or empty, as messages needs it; found keys none"),
        (
            '{"text": "x"}',
            "found keys text. Fix: add it to the record, name its key in data.columns, or leave",
        ),
        ('{"messages": []}', "messages: missing or empty"),
        ('{"messages": "hello"}', "messages: found text"),
        (_turns(_user()), "messages: no assistant turn"),
        (
            _turns("q", _assistant()),
            "messages[0]: found text, must be an object with role and content",
        ),
        (
            _turns({"role": "narrator", "content": "q"}, _assistant()),
            "messages[0].role: found 'narrator', allowed: system, user, assistant",
        ),
        (_turns({"content": "q"}, _assistant()), "messages[0].role: found None"),
        (
            _turns(_user(), {"role": "system", "content": "s"}, _assistant()),
            "messages[1].role: a system turn is allowed only first",
        ),
        (_turns(_user(), _assistant(None)), "messages[1].content: found null, must be text"),
        (
            _turns(_user(), _assistant([{"type": "text"}])),
            "messages[1].content: found a part of type 'text', must be text",
        ),
        (_turns(_user(" \n"), _assistant()), "messages[0].content: is empty"),
        (_turns(_user(), _assistant("\ud83d")), "messages[1].content: holds half a surrogate pair"),
        (
            _turns(_user(), _assistant([{"type": "image_url"}])),
            "messages[1].content: found a part of type 'image_url'",
        ),
        (
            _turns(_user(), {**_assistant(), "images": ["a.png"]}),
            "messages[1].images: not supported",
        ),
        (
            _turns(_user(), {**_assistant(), "tool_calls": "x"}),
            "messages[1].tool_calls: found text, must be a list of calls",
        ),
        (
            _turns(_user(), {**_assistant(), "tool_calls": [{"id": 1}]}),
            "messages[1].tool_calls[0]: found an object, must be an object",
        ),
        (
            _turns(_user(), {**_assistant(), "weight": 0.5}),
            "messages[1].weight: found 0.5, must be 0 or false",
        ),
        (_turns(_user(), {**_assistant(), "train": False}), "every assistant turn has weight 0"),
        (
            _turns(_user(), {**_assistant(), "thinking": 3}),
            "messages[1].thinking: found a number, must be text",
        ),
        ('{"tools": [1], ' + GOOD[1:], "tools: found a list, must be a list of tool definitions"),
        ('{"documents": [1], ' + GOOD[1:], "documents: not supported"),
        ('{"messages": 1, "messages": 2}', "key 'messages' is given twice in one object"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_conversation_is_reported_by_file_and_line(
    tmp_path: Path, record: str, reported: str
) -> None:
    (problem,) = _problems(tmp_path, f"{GOOD}\n{record}\n".encode())
    assert problem.startswith("data.jsonl:2: ")
    assert reported in problem


def test_bytes_that_are_not_utf8_are_reported_with_their_place(tmp_path: Path) -> None:
    assert _problems(tmp_path, b'{"a": "\xff"}') == (
        "data.jsonl:1: not UTF-8 (byte 0xff at offset 7); save the file as UTF-8",
    )


def test_all_problems_of_a_record_and_of_all_files_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(_turns(_user(""), {"role": "narrator", "content": 1}))
    with pytest.raises(DataError) as raised:
        read_records(
            RecordSource(str(tmp_path / "a.jsonl")), RecordSource(str(tmp_path / "missing.jsonl"))
        )
    assert len(raised.value.problems) == 4
    assert (
        raised.value.problems[-1]
        == f"{tmp_path}/missing.jsonl: no such file; there are: {tmp_path}/a.jsonl"
    )


def test_of_many_problems_the_first_20_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    problems = _problems(tmp_path, "".join(f'{{"a{n}": 1}}\n' for n in range(123)).encode())
    assert len(problems) == 21
    assert problems[-1] == "and 103 more of 123 problems"


def test_equal_problems_are_one_line_with_their_number(tmp_path: Path) -> None:
    (line,) = _problems(tmp_path, GOOD.encode() + b"\n{}" * 15_010)
    assert line.startswith("data.jsonl:2: messages: missing or empty")
    assert line.endswith("data.jsonl:3)")
    assert "(the same in 15,009 others, next " in line


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_records_is_refused(tmp_path: Path, content: bytes) -> None:
    (problem,) = _problems(tmp_path, content)
    assert problem.startswith("data.jsonl: holds no record")
