import hashlib
import json
from pathlib import Path

import pytest

from components.prepare_dataset.records import Conversation, parse_record, read_records
from components.shared.errors import DataError

GOOD = '{"messages": [{"role": "user", "content": "港は？"}, {"role": "assistant", "content": "青です。"}]}'


def _turns(*turns: object) -> str:
    return json.dumps({"messages": turns})


def _user(content: object = "q") -> dict[str, object]:
    return {"role": "user", "content": content}


def _assistant(content: object = "a") -> dict[str, object]:
    return {"role": "assistant", "content": content}


def _problems(tmp_path: Path, content: bytes) -> tuple[str, ...]:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_records(str(path))
    return tuple(problem.removeprefix(str(tmp_path) + "/") for problem in raised.value.problems)


def test_records_keep_their_order_their_text_and_their_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    content = f"\n{GOOD}\r\n\n{_turns(_user(), _assistant(), _user())}\n".encode()
    path.write_bytes(content)
    (file,) = read_records(str(path))
    assert [found.where for found in file.conversations] == [f"{path}:2", f"{path}:4"]
    assert file.conversations[0].messages[1].content == "青です。"
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert len(read_records(str(path))[0].conversations) == 1


def test_a_line_separator_inside_text_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(GOOD.replace("港", "港\u2028") + "\n", encoding="utf-8")
    assert read_records(str(path))[0].conversations[0].messages[0].content == "港\u2028は？"


def test_keys_beside_messages_are_left_unread() -> None:
    assert isinstance(parse_record(b'{"id": 7, ' + GOOD.encode()[1:], "x:1"), Conversation)


def test_digests_are_equal_only_for_conversations_that_say_the_same() -> None:
    records = [GOOD, '{"id": 1, ' + GOOD[1:], GOOD.replace("青", "赤")]
    digests = [found.digest for record in records if isinstance(found := parse_record(record.encode(), "x:1"), Conversation)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("[1]", "found a list, must be an object a line"),
        ("3", "found a number"),
        ("null", "found null"),
        ('{"messages": ', "not JSON (Expecting value at column 14)"),
        ("{}", "messages: missing, found keys none"),
        ('{"text": "x"}', "messages: missing, found keys text"),
        ('{"messages": []}', "messages: found an empty list"),
        ('{"messages": "hello"}', "messages: found text"),
        (_turns(_user()), "messages: no assistant turn"),
        (_turns("q", _assistant()), "messages[0]: found text, must be an object with role and content"),
        (_turns({"role": "human", "content": "q"}, _assistant()), "messages[0].role: found 'human', allowed: system, user, assistant"),
        (_turns({"content": "q"}, _assistant()), "messages[0].role: found None"),
        (_turns(_user(), {"role": "system", "content": "s"}, _assistant()), "messages[1].role: a system turn is allowed only first"),
        (_turns(_user(), _assistant(None)), "messages[1].content: found null, must be text"),
        (_turns(_user(), _assistant([{"type": "text"}])), "messages[1].content: found a list, must be text"),
        (_turns(_user(" \n"), _assistant()), "messages[0].content: is empty"),
        (_turns(_user(), _assistant("\ud83d")), "messages[1].content: holds half a surrogate pair"),
        (_turns(_user(), {**_assistant(), "tool_calls": []}), "messages[1].tool_calls: unknown key, allowed: role, content"),
        ('{"tools": [1], ' + GOOD[1:], "tools: not supported"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_conversation_is_told_by_file_and_line(tmp_path: Path, record: str, told: str) -> None:
    (problem,) = _problems(tmp_path, f"{GOOD}\n{record}\n".encode())
    assert problem.startswith("data.jsonl:2: ")
    assert told in problem


def test_bytes_that_are_not_utf8_are_told_with_their_place(tmp_path: Path) -> None:
    assert _problems(tmp_path, b'{"a": "\xff"}') == ("data.jsonl:1: not UTF-8 (byte 0xff at offset 7); save the file as UTF-8",)


def test_all_problems_of_a_record_and_of_all_files_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(_turns(_user(""), {"role": "human", "content": 1}))
    with pytest.raises(DataError) as raised:
        read_records(str(tmp_path / "a.jsonl"), str(tmp_path / "missing.jsonl"))
    assert len(raised.value.problems) == 5
    assert raised.value.problems[-1] == f"{tmp_path}/missing.jsonl: no such file; there are: {tmp_path}/a.jsonl"


def test_of_many_problems_the_first_20_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    problems = _problems(tmp_path, b"{}\n" * 123)
    assert len(problems) == 21
    assert problems[-1] == "and 103 more of 123 problems"


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_records_is_refused(tmp_path: Path, content: bytes) -> None:
    (problem,) = _problems(tmp_path, content)
    assert problem.startswith("data.jsonl: holds no record")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, must be one JSONL file"):
        read_records(str(tmp_path))
