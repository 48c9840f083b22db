"""Every form in which conversations are published, in small: what it is read as, and the
conversation that comes of it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from components.prepare_dataset.records.conversations import Message
from components.prepare_dataset.records.recognition import FIRST_RECORDS
from components.prepare_dataset.records.records import RecordFile, RecordSource, read_records
from components.shared.errors import DataError

TIDE = {"name": "tide", "parameters": {"type": "object"}}
QA = [("user", "q"), ("assistant", "a")]

FORMS: dict[str, tuple[str, dict[str, Any], list[tuple[str, str]]]] = {
    "OpenAI messages": (
        "messages",
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        QA,
    ),
    "messages with from and value": (
        "messages",
        {"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        QA,
    ),
    "messages of text parts": (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {"role": "assistant", "content": "a"},
            ]
        },
        QA,
    ),
    "a developer's turn": (
        "messages",
        {
            "messages": [
                {"role": "developer", "content": "s"},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ]
        },
        [("system", "s"), *QA],
    ),
    "ShareGPT": (
        "sharegpt",
        {
            "id": 1,
            "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        },
        QA,
    ),
    "ShareGPT with a system key": (
        "sharegpt",
        {
            "system": "s",
            "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        },
        [("system", "s"), *QA],
    ),
    "ShareGPT with roles": (
        "sharegpt",
        {
            "conversations": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ]
        },
        QA,
    ),
    "oasst1-chat-ja": (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        QA,
    ),
    "Alpaca": ("alpaca", {"instruction": "q", "input": "", "output": "a"}, QA),
    "Alpaca with an input": (
        "alpaca",
        {"instruction": "q", "input": "i", "output": "a"},
        [("user", "q\n\ni"), ("assistant", "a")],
    ),
    "alpaca_ja": (
        "alpaca",
        {"no": 1, "instruction": "港は？", "input": "", "output": "青"},
        [("user", "港は？"), ("assistant", "青")],
    ),
    "Alpaca with system and history": (
        "alpaca",
        {"instruction": "q", "output": "a", "system": "s", "history": [["q0", "a0"]]},
        [("system", "s"), ("user", "q0"), ("assistant", "a0"), *QA],
    ),
    "databricks-dolly": (
        "alpaca",
        {"instruction": "q", "context": "c", "response": "a", "category": "qa"},
        [("user", "q\n\nc"), QA[1]],
    ),
    "databricks-dolly-15k-ja": (
        "alpaca",
        {"index": "0", "category": "closed_qa", "instruction": "q", "input": "", "output": "a"},
        QA,
    ),
    "ichikara-instruction": ("ichikara", {"ID": "ichikara-001", "text": "q", "output": "a"}, QA),
    "ELYZA-tasks-100": ("prompt_completion", {"input": "q", "output": "a", "eval_aspect": "e"}, QA),
    "prompt and completion": ("prompt_completion", {"prompt": "q", "completion": "a"}, QA),
    "question and answer": ("prompt_completion", {"question": "q", "answer": "a"}, QA),
    "prompt and response with a system prompt": (
        "prompt_completion",
        {"system_prompt": "s", "question": "q", "response": "a"},
        [("system", "s"), *QA],
    ),
    "prompt and completion as turns": (
        "prompt_completion",
        {
            "prompt": [{"role": "user", "content": "q"}],
            "completion": [{"role": "assistant", "content": "a"}],
        },
        QA,
    ),
    "an OpenAssistant tree": (
        "oasst_tree",
        {
            "message_tree_id": "t",
            "prompt": {
                "text": "q",
                "role": "prompter",
                "replies": [
                    {"text": "worse", "role": "assistant", "rank": 1, "replies": []},
                    {
                        "text": "a",
                        "role": "assistant",
                        "rank": 0,
                        "replies": [{"text": "next?", "role": "prompter", "replies": []}],
                    },
                ],
            },
        },
        QA,
    ),
}


def _read(path: Path, content: str | bytes, **how: Any) -> RecordFile:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (file,) = read_records(RecordSource(str(path), **how))
    return file


def _said(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


def _problem(path: Path, content: str | bytes, **how: Any) -> str:
    with pytest.raises(DataError) as raised:
        _read(path, content, **how)
    (problem,) = raised.value.problems
    return problem.removeprefix(f"{path.parent}/")


@pytest.mark.parametrize(("form", "record", "said"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("kind", ["lines", "list", "list over many lines"])
def test_a_form_is_recognised_in_lines_and_lists(
    tmp_path: Path, form: str, record: dict[str, Any], said: list[tuple[str, str]], kind: str
) -> None:
    indent = 2 if kind == "list over many lines" else None
    content = (
        json.dumps(record) + "\n"
        if kind == "lines"
        else json.dumps([record, record], indent=indent)
    )
    file = _read(tmp_path / "data.json", content)
    assert file.form == form
    assert {tuple(_said(found.messages)) for found in file.conversations} == {tuple(said)}
    assert len(file.conversations) == (1 if kind == "lines" else 2)


def test_records_of_a_list_have_their_number_and_the_line_on_which_they_begin(
    tmp_path: Path,
) -> None:
    record = json.dumps(FORMS["Alpaca"][1], indent=1)
    file = _read(tmp_path / "data.json", f"\n[\n{record},\n{record}\n]\n")
    assert [found.where.rpartition(":")[2] for found in file.conversations] == [
        "3 (record 1)",
        "8 (record 2)",
    ]


def test_a_list_that_breaks_off_is_one_problem_with_its_line(tmp_path: Path) -> None:
    record = json.dumps(FORMS["Alpaca"][1])
    problem = _problem(tmp_path / "data.json", f"[\n{record},\n{record[:-1]}\n")
    assert problem.startswith("data.json:4: the JSON list cannot be read on (")


@pytest.mark.parametrize("absent", [None, [], ""])
def test_null_and_empty_keys_count_as_absent(tmp_path: Path, absent: Any) -> None:
    more = {
        "tool_calls": absent or None,
        "name": absent or None,
        "reasoning_content": absent or None,
    }
    turns = [
        {"role": "user", "content": "q", **more},
        {"role": "assistant", "content": "a", **more},
    ]
    (found,) = _read(
        tmp_path / "data.jsonl",
        json.dumps({"messages": turns, "tools": absent, "instruction": None}),
    ).conversations
    assert found.messages == (Message("user", "q"), Message("assistant", "a"))
    assert found.tools is None


@pytest.mark.parametrize(
    "mark",
    [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"trainable": False}, {"loss": False}],
)
def test_a_turn_of_weight_0_is_read_and_not_trained_on(
    tmp_path: Path, mark: dict[str, Any]
) -> None:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "no", **mark},
        {"role": "assistant", "content": "a"},
    ]
    (found,) = _read(tmp_path / "data.jsonl", json.dumps({"messages": turns})).conversations
    assert [message.trained for message in found.messages] == [True, False, True]


def test_tools_calls_and_results_are_kept_for_the_template(tmp_path: Path) -> None:
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "tide", "arguments": '{"port": "Kobe"}'},
    }
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "6:40"},
        {"role": "assistant", "content": "a", "reasoning_content": "r"},
    ]
    (found,) = _read(
        tmp_path / "data.jsonl", json.dumps({"messages": turns, "tools": json.dumps([TIDE])})
    ).conversations
    assert found.tools == [{"type": "function", "function": TIDE}]
    assert found.messages[1].tool_calls[0]["function"] == {
        "name": "tide",
        "arguments": {"port": "Kobe"},
    }
    assert found.messages[2].fields == {"tool_call_id": "1"}
    assert found.messages[3].fields == {"reasoning_content": "r", "thinking": "r"}


def test_calls_of_sharegpt_are_calls(tmp_path: Path) -> None:
    turns = [
        ("human", "q"),
        ("function_call", '{"name": "tide", "arguments": {}}'),
        ("observation", "6:40"),
        ("gpt", "a"),
    ]
    record = {
        "conversations": [{"from": speaker, "value": value} for speaker, value in turns],
        "tools": json.dumps([TIDE]),
    }
    (found,) = _read(tmp_path / "data.jsonl", json.dumps(record)).conversations
    assert [message.role for message in found.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert found.messages[1].tool_calls[0]["function"]["name"] == "tide"


def test_an_assistants_turn_of_a_prompt_is_not_trained_on(tmp_path: Path) -> None:
    prompt = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "r"},
    ]
    record = {"prompt": prompt, "completion": [{"role": "assistant", "content": "a"}]}
    (found,) = _read(tmp_path / "data.jsonl", json.dumps(record)).conversations
    assert [message.trained for message in found.messages] == [True, False, True, True]


def test_an_empty_system_turn_is_left_out_and_counted(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": " "},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    (found,) = _read(tmp_path / "data.jsonl", json.dumps({"messages": turns})).conversations
    assert (_said(found.messages), found.num_empty_system) == (QA, 1)


def test_a_number_longer_than_python_reads_is_no_problem(tmp_path: Path) -> None:
    record = json.dumps(FORMS["OpenAI messages"][1])
    file = _read(tmp_path / "data.jsonl", record[:-1] + ', "id": ' + "7" * 5000 + "}")
    assert _said(file.conversations[0].messages) == QA


def test_columns_name_the_keys_of_a_form(tmp_path: Path) -> None:
    record = json.dumps({"title": "q", "body": "a"})
    file = _read(
        tmp_path / "data.jsonl",
        record,
        format="prompt_completion",
        columns={"prompt": "title", "completion": "body"},
    )
    assert _said(file.conversations[0].messages) == QA


def test_an_unknown_form_is_one_message_with_the_yaml_to_write(tmp_path: Path) -> None:
    problem = _problem(tmp_path / "data.jsonl", json.dumps({"title": "q", "body": "a", "n": 1}))
    assert problem.startswith(
        "data.jsonl:1: unknown form: the record has 'title' (text), 'body' (text), 'n' (a number). "
        "Fix: "
    )
    assert problem.endswith(
        "data: {format: prompt_completion, columns: {prompt: title, completion: body}}"
    )


@pytest.mark.parametrize(
    ("record", "reported"),
    [
        (
            {"id": "x1", "question_ja": "long question", "answer_ja": "long answer"},
            "{prompt: question_ja, completion: answer_ja}",
        ),
        (
            {"message_id": "1", "parent_id": None, "text": "q", "role": "prompter"},
            "single messages of OpenAssistant's trees",
        ),
        (
            {"body": "only text"},
            (
                "to train on all of it, write data: {format: text, columns: {text: body}}; or "
                "write records such as"
            ),
        ),
        ({"scores": [1], "n": 1}, "write records such as"),
    ],
)
def test_the_advice_for_an_unknown_form_fits_it(
    tmp_path: Path, record: dict[str, Any], reported: str
) -> None:
    assert reported in _problem(tmp_path / "data.jsonl", json.dumps(record))


def test_preferences_are_advised_to_name_the_chosen_turns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    problem = _problem(tmp_path / "data.jsonl", json.dumps({"chosen": turns, "rejected": turns}))
    assert problem.endswith("data: {format: messages, columns: {messages: chosen}}")
    file = _read(
        tmp_path / "data.jsonl",
        json.dumps({"chosen": turns}),
        format="messages",
        columns={"messages": "chosen"},
    )
    assert _said(file.conversations[0].messages) == QA


def test_a_column_that_the_form_does_not_have_is_refused(tmp_path: Path) -> None:
    problem = _problem(tmp_path / "data.jsonl", "{}", format="alpaca", columns={"question": "q"})
    assert problem == (
        "data.columns: found 'question', allowed for alpaca: instruction, input, output, "
        "system, history"
    )


def test_a_record_of_another_form_than_the_first_is_a_problem_with_its_keys(tmp_path: Path) -> None:
    content = json.dumps(FORMS["Alpaca"][1]) + "\n" + json.dumps(FORMS["prompt and completion"][1])
    problem = _problem(tmp_path / "data.jsonl", content)
    assert problem.startswith(
        "data.jsonl:2: instruction; output or response: missing or empty, as alpaca needs it; "
        "found keys prompt"
    )


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "utf-16"])
def test_another_encoding_is_named_and_read_when_the_spec_names_it(
    tmp_path: Path, encoding: str
) -> None:
    content = (
        json.dumps({"prompt": "港は何色ですか。", "completion": "青です。"}, ensure_ascii=False)
        + "\n"
    ).encode(encoding)
    problem = _problem(tmp_path / "data.jsonl", content)
    assert (
        f"it reads as {encoding}; save the file as UTF-8, or set data.encoding: {encoding}"
        in problem
    )
    file = _read(tmp_path / "data.jsonl", content, encoding=encoding)
    assert file.conversations[0].messages[0].content == "港は何色ですか。"


def test_an_encoding_that_python_does_not_know_is_refused(tmp_path: Path) -> None:
    assert _problem(tmp_path / "data.jsonl", "{}", encoding="nope").startswith(
        "data.encoding: found 'nope', must be an encoding"
    )


@pytest.mark.parametrize(
    ("keys", "form", "lacking"),
    [
        (("text", "output"), "ichikara", "output"),
        (("instruction", "output"), "alpaca", "output or response"),
    ],
)
@pytest.mark.parametrize("empty", ["", None])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_first_record_with_an_empty_answer_makes_no_file_of_texts(
    tmp_path: Path, keys: tuple[str, str], form: str, lacking: str, empty: str | None, kind: str
) -> None:
    records = [
        {"text": "t", **dict(zip(keys, each, strict=True))}
        for each in (("Q0?", empty), ("Q1?", "A1"))
    ]
    data = tmp_path / f"train.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), data)
    else:
        data.write_text("".join(json.dumps(each) + "\n" for each in records))
    (file,) = read_records(RecordSource(str(data)), skip_bad=True)
    assert (file.form, len(file.conversations)) == (form, 1)
    (problem,) = file.skipped
    assert problem.startswith(f"{lacking}: missing or empty, as {form} needs it")


def test_a_text_beside_a_prompt_is_read_where_the_spec_says_so(tmp_path: Path) -> None:
    content = json.dumps({"prompt": "write a story", "text": "Once upon a time"})
    assert "or data: {format: text} to train on text alone" in _problem(
        tmp_path / "data.jsonl", content
    )
    assert _read(tmp_path / "data.jsonl", content, format="text").form == "text"
    assert (
        _read(tmp_path / "data.jsonl", '{"output": "a"}', columns={"text": "output"}).form == "text"
    )


def _lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


ASKED = {"instruction": "Translate.", "input": "hi", "output": "salut"}


@pytest.mark.parametrize(
    "first",
    [
        {"instruction": "", "input": "q", "output": "a"},
        {"instruction": None, "input": "q", "output": "a"},
        {"input": "q", "output": "a"},
    ],
    ids=["empty", "null", "left out"],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_an_alpaca_file_may_begin_without_an_instruction(
    tmp_path: Path, first: dict[str, Any], kind: str
) -> None:
    data = tmp_path / f"train.{kind}"
    table = pa.Table.from_pylist([{"instruction": None} | first, ASKED])
    if kind == "parquet":
        pq.write_table(table, data)
    elif kind == "csv":
        pa_csv.write_csv(table, data)
    else:
        data.write_text(_lines(first, ASKED))
    (file,) = read_records(RecordSource(str(data)))
    assert file.form == "alpaca"
    said = [_said(found.messages) for found in file.conversations]
    assert said == [QA, [("user", "Translate.\n\nhi"), ("assistant", "salut")]]


def test_a_blank_input_is_no_question(tmp_path: Path) -> None:
    blank = {**ASKED, "instruction": "", "input": " "}
    problem = _problem(tmp_path / "a.jsonl", _lines(blank, ASKED))
    assert problem.startswith("a.jsonl:1: instruction: missing or empty, as alpaca needs it")


@pytest.mark.parametrize(
    ("later", "form"),
    [
        ({"text": "q", "output": "a"}, "ichikara"),
        ({"text": "t", "instruction": "q", "output": "a"}, "alpaca"),
        ({"instruction": "q", "output": "a"}, "alpaca"),
        ({"text": "t", "prompt": "q", "completion": "a"}, "prompt_completion"),
        ({"text": "t", "messages": FORMS["OpenAI messages"][1]["messages"]}, "messages"),
    ],
)
@pytest.mark.parametrize("num_later", [1, 3])
def test_a_first_record_with_text_alone_makes_no_file_of_texts(
    tmp_path: Path, later: dict[str, Any], form: str, num_later: int
) -> None:
    content = _lines({"text": "q"}, *[later] * num_later)
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    (file,) = read_records(RecordSource(str(path)), skip_bad=True)
    assert (file.form, len(file.conversations)) == (form, num_later)
    assert _said(file.conversations[0].messages) == QA
    (problem,) = file.skipped
    assert "missing or empty" in problem
    assert f"as {form} needs it" in problem


@pytest.mark.parametrize(
    ("form", "record", "other", "keys"),
    [
        ("text", {"text": "t"}, {"text": "t", "output": None}, "'output'"),
        (
            "ichikara",
            {"text": "t", "output": "a"},
            {**ASKED, "text": "t"},
            "'instruction', 'output'",
        ),
        ("prompt_completion", {"input": "q", "output": "a"}, ASKED, "'instruction', 'output'"),
        (
            "prompt_completion",
            {"prompt": "q", "completion": "a", "messages": None},
            {"prompt": "q", **FORMS["OpenAI messages"][1], "completion": "a"},
            "'messages'",
        ),
    ],
)
def test_a_late_record_of_another_form_is_not_read_without_its_keys(
    tmp_path: Path, form: str, record: dict[str, Any], other: dict[str, Any], keys: str
) -> None:
    content = _lines(*[record] * FIRST_RECORDS, other)
    problem = _problem(tmp_path / "data.jsonl", content)
    where = f"data.jsonl:{FIRST_RECORDS + 1}: "
    assert problem.startswith(f"{where}has {keys}, but the file is read as {form}, by its first")
    assert problem.endswith(f"or write data: {{format: {form}}} to leave it unread")
    file = _read(tmp_path / "data.jsonl", content, format=form)
    assert len(file.conversations) == FIRST_RECORDS + 1


def test_an_empty_column_of_another_form_is_no_problem(tmp_path: Path) -> None:
    record = {"messages": None, "conversations": FORMS["ShareGPT"][1]["conversations"]}
    late = {"conversations": record["conversations"], "messages": []}
    file = _read(tmp_path / "data.jsonl", _lines(*[record] * FIRST_RECORDS, late))
    assert (file.form, len(file.conversations)) == ("sharegpt", FIRST_RECORDS + 1)


def test_the_form_of_most_records_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(_lines({"text": "q", "output": "a"}, *[{"text": "t"}] * 5))
    (file,) = read_records(RecordSource(str(path)), skip_bad=True)
    assert (file.form, len(file.conversations)) == ("text", 5)
    (problem,) = file.skipped
    assert problem.startswith("has 'output', but the file is read as text")


def test_a_form_that_comes_behind_many_bad_records_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(_lines(*[{"n": 1}] * (FIRST_RECORDS + 3), ASKED))
    (file,) = read_records(RecordSource(str(path)), skip_bad=True)
    assert (file.form, len(file.conversations)) == ("alpaca", 1)
    assert sum(len(places) for places in file.skipped.values()) == FIRST_RECORDS + 3


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [("prompt", "completion"), ("instruction", "output"), ("question", "answer")],
)
def test_a_text_that_looks_like_turns_stays_a_text(
    tmp_path: Path, asked: str, answered: str
) -> None:
    text = json.dumps(TURNS)
    (found,) = _read(
        tmp_path / "data.jsonl", json.dumps({asked: text, answered: text})
    ).conversations
    assert _said(found.messages) == [("user", text), ("assistant", text)]


@pytest.mark.parametrize(
    ("key", "how"),
    [
        ("messages", {}),
        ("conversations", {}),
        ("chat", {"format": "messages", "columns": {"messages": "chat"}}),
    ],
)
def test_turns_as_json_text_may_have_only_calls(
    tmp_path: Path, key: str, how: dict[str, Any]
) -> None:
    call = {"function": {"name": "tide", "arguments": "{}"}}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]}]
    content = json.dumps({key: json.dumps(turns)})
    (found,) = _read(tmp_path / "data.jsonl", content, **how).conversations
    assert [message.role for message in found.messages] == ["user", "assistant"]


def test_columns_of_another_form_are_no_turns(tmp_path: Path) -> None:
    text = json.dumps(TURNS)
    columns = {"prompt": "messages", "completion": "answer"}
    (found,) = _read(
        tmp_path / "data.jsonl",
        json.dumps({"messages": text, "answer": "a"}),
        format="prompt_completion",
        columns=columns,
    ).conversations
    assert _said(found.messages) == [("user", text), ("assistant", "a")]
