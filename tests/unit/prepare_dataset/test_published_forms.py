"""Forms in which data sets are published, by name, each as `hagane data FILE` takes it: what it is
read as, or why not.

Only the keys and the file format are those of the sets; the words are our own. Run as a program it
prints the table.
"""

import csv
import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.prepare_dataset.__main__ import look
from components.prepare_dataset.report.look_lines import lines_of
from components.shared.errors import DataError

ALPACA = {"instruction": "港は何色？", "input": "", "output": "青です。"}
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SPOKEN = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
CALL = [{"id": "1", "type": "function", "function": {"name": "tide", "arguments": "{}"}}]
TOOL = {
    "type": "function",
    "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}},
}
TREE = {
    "text": "q",
    "role": "prompter",
    "replies": [{"text": "a", "role": "assistant", "rank": 0, "replies": []}],
}


def lines(record: Any) -> bytes:
    return f"{json.dumps(record, ensure_ascii=False)}\n".encode()


def listed(record: Any) -> bytes:
    return json.dumps([record, record], ensure_ascii=False, indent=2).encode()


def table(record: dict[str, Any], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, record, delimiter=delimiter)
    writer.writeheader()
    writer.writerow(record)
    return text.getvalue().encode()


def tabs(record: dict[str, Any]) -> bytes:
    return table(record, "\t")


def parquet(record: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([record]), sink)
    return sink.getvalue()


def zipped(record: Any) -> bytes:
    return gzip.compress(lines(record))


def zstd(record: Any) -> bytes:
    return pa.compress(lines(record), codec="zstd", asbytes=True)


def tarred(content: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        entry = tarfile.TarInfo("a.jsonl")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


def as_it_is(content: bytes) -> bytes:
    return content


Form = tuple[str, str, Callable[[Any], bytes], Any, str]
ACCEPTED: list[Form] = [
    (
        "kunishou/databricks-dolly-15k-ja",
        "a.json",
        listed,
        {"index": "0", "category": "closed_qa", **ALPACA},
        "alpaca",
    ),
    (
        "llm-jp/databricks-dolly-15k-ja",
        "a.jsonl",
        lines,
        {"instruction": "q", "context": "c", "response": "a", "category": "x"},
        "alpaca",
    ),
    ("kunishou/oasst1-chat-44k-ja", "a.json", listed, {"conversations": SPOKEN}, "sharegpt"),
    (
        "llm-jp/oasst1-21k-ja",
        "a.jsonl",
        lines,
        {"conversation_id": "x", "conversations": SPOKEN},
        "sharegpt",
    ),
    (
        "llm-jp/oasst2-33k-ja",
        "a.parquet",
        parquet,
        {"conversation_id": "x", "conversations": SPOKEN},
        "sharegpt",
    ),
    (
        "kunishou/hh-rlhf-49k-ja",
        "a.json",
        listed,
        {**ALPACA, "ng_translation": "0", "index": "7"},
        "alpaca",
    ),
    (
        "ichikara-instruction-003-001",
        "a.json",
        listed,
        {"ID": "ichikara-001", "text": "q", "output": "a"},
        "ichikara",
    ),
    (
        "llm-jp/AnswerCarefully",
        "a.jsonl",
        lines,
        {"ID": "AC-1", "harmful-category": "x", "text": "q", "output": "a"},
        "ichikara",
    ),
    ("fujiki/japanese_alpaca_data", "a.parquet", parquet, ALPACA, "alpaca"),
    ("shi3z/alpaca_cleaned_ja_json", "a.json", listed, ALPACA, "alpaca"),
    (
        "shi3z/ja_conv_wikipedia_orion14B_100K",
        "a.jsonl",
        lines,
        {"id": "1", "conversations": SPOKEN},
        "sharegpt",
    ),
    ("saldra/sakura_japanese_dataset", "a.csv", table, ALPACA, "alpaca"),
    ("izumi-lab/llm-japanese-dataset", "a.jsonl.gz", zipped, ALPACA, "alpaca"),
    (
        "HachiML/alpaca_jp_python",
        "a.parquet",
        parquet,
        {"No.": 1, **ALPACA, "code_result": "x"},
        "alpaca",
    ),
    (
        "elyza/ELYZA-tasks-100",
        "a.csv",
        table,
        {"input": "q", "output": "a", "eval_aspect": "e"},
        "prompt_completion",
    ),
    ("llm-jp/magpie-sft-v1.0", "a.jsonl.gz", zipped, {"id": 1, "conversations": CHAT}, "sharegpt"),
    (
        "Aratako/Synthetic-JP-EN-Coding-Dataset",
        "a.jsonl",
        lines,
        {"index": 1, "messages": CHAT},
        "messages",
    ),
    ("range3/cc100-ja", "a.parquet", parquet, {"text": "港は青い。"}, "text"),
    (
        "wikimedia/wikipedia 20231101.ja",
        "a.parquet",
        parquet,
        {"id": "1", "url": "u", "title": "t", "text": "港は青い。"},
        "text",
    ),
    (
        "llm-jp-corpus",
        "a.jsonl.gz",
        zipped,
        {"text": "港は青い。", "meta": {"source": "x"}},
        "text",
    ),
    ("tatsu-lab/alpaca", "a.parquet", parquet, {**ALPACA, "text": "all of it"}, "alpaca"),
    (
        "databricks/databricks-dolly-15k",
        "a.jsonl",
        lines,
        {"instruction": "q", "context": "", "response": "a", "category": "x"},
        "alpaca",
    ),
    (
        "OpenAssistant/oasst1 trees",
        "a.jsonl.gz",
        zipped,
        {"message_tree_id": "t", "prompt": TREE},
        "oasst_tree",
    ),
    (
        "HuggingFaceH4/ultrachat_200k",
        "a.parquet",
        parquet,
        {"prompt": "q", "prompt_id": "1", "messages": CHAT},
        "messages",
    ),
    (
        "Open-Orca/OpenOrca",
        "a.parquet",
        parquet,
        {"id": "1", "system_prompt": "s", "question": "q", "response": "a"},
        "prompt_completion",
    ),
    (
        "teknium/OpenHermes-2.5",
        "a.json",
        listed,
        {"source": "x", "conversations": SPOKEN, "model_name": None},
        "sharegpt",
    ),
    ("WizardLM evol_instruct_70k", "a.json", listed, {"instruction": "q", "output": "a"}, "alpaca"),
    ("ShareGPT Vicuna", "a.json", listed, {"id": "x_0", "conversations": SPOKEN}, "sharegpt"),
    ("openai/gsm8k", "a.parquet", parquet, {"question": "q", "answer": "a"}, "prompt_completion"),
    (
        "timdettmers/openassistant-guanaco",
        "a.jsonl",
        lines,
        {"text": "### Human: q### Assistant: a"},
        "text",
    ),
    (
        "OpenAI fine-tuning",
        "a.jsonl",
        lines,
        {"messages": [{"role": "system", "content": "s"}, *CHAT]},
        "messages",
    ),
    (
        "OpenAI fine-tuning with weights",
        "a.jsonl",
        lines,
        {"messages": [*CHAT, CHAT[0], {**CHAT[1], "weight": 0}]},
        "messages",
    ),
    (
        "OpenAI fine-tuning with tools",
        "a.jsonl",
        lines,
        {
            "messages": [
                CHAT[0],
                {"role": "assistant", "tool_calls": CALL},
                {"role": "tool", "tool_call_id": "1", "content": "6"},
                CHAT[1],
            ],
            "tools": [TOOL],
        },
        "messages",
    ),
    (
        "OpenAI legacy completions",
        "a.jsonl",
        lines,
        {"prompt": "q", "completion": "a"},
        "prompt_completion",
    ),
    (
        "LLaMA-Factory ShareGPT with system and tools",
        "a.json",
        listed,
        {"conversations": SPOKEN, "system": "s", "tools": "[]"},
        "sharegpt",
    ),
    (
        "LLaMA-Factory Alpaca with history",
        "a.json",
        listed,
        {**ALPACA, "system": "s", "history": [["q", "a"]]},
        "alpaca",
    ),
    (
        "Hermes function calling",
        "a.json",
        listed,
        {
            "conversations": [
                SPOKEN[0],
                {"from": "function_call", "value": '{"name": "tide"}'},
                {"from": "observation", "value": "6"},
                SPOKEN[1],
            ],
            "tools": json.dumps([TOOL]),
        },
        "sharegpt",
    ),
    (
        "reasoning in its own key",
        "a.jsonl",
        lines,
        {"messages": [CHAT[0], {**CHAT[1], "reasoning_content": "r"}]},
        "messages",
    ),
    (
        "TRL prompt and completion as turns",
        "a.jsonl",
        lines,
        {"prompt": CHAT[:1], "completion": CHAT[1:]},
        "prompt_completion",
    ),
    (
        "content parts of type text",
        "a.jsonl",
        lines,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, CHAT[1]]},
        "messages",
    ),
    (
        "rows of datasets.map",
        "a.parquet",
        parquet,
        {"input_ids": [1, 2], "attention_mask": [1, 1], "labels": [-100, 2]},
        "tokens",
    ),
    ("a text file", "a.txt", as_it_is, "港は青い。".encode(), "text"),
    ("TSV", "a.tsv", tabs, ALPACA, "alpaca"),
    ("zstd", "a.jsonl.zst", zstd, ALPACA, "alpaca"),
    (
        "turns as JSON text, as a database exports them",
        "a.parquet",
        parquet,
        {"id": 1, "messages": json.dumps(CHAT)},
        "messages",
    ),
    (
        "turns as an object of lists, as older datasets write them",
        "a.parquet",
        parquet,
        {"conversations": {"from": ["human", "gpt"], "value": ["q", "a"]}},
        "sharegpt",
    ),
    ("an answer that is a JSON list", "a.csv", table, {**ALPACA, "output": '[{"a": 1}]'}, "alpaca"),
    (
        "roles with capitals",
        "a.jsonl",
        lines,
        {"messages": [{"role": "User", "content": "q"}, {"role": "Assistant", "content": "a"}]},
        "messages",
    ),
    ("a file that ends by Ctrl-Z", "a.jsonl", as_it_is, lines(ALPACA) + b"\x1a", "alpaca"),
    ("semicolons of Excel", "a.csv", lambda record: table(record, ";"), ALPACA, "alpaca"),
]
REFUSED: list[Form] = [
    (
        "kunishou/oasst1-89k-ja",
        "a.jsonl",
        lines,
        {"message_id": "m", "parent_id": None, "text": "q", "role": "prompter", "text_ja": "港"},
        "single messages of OpenAssistant's trees",
    ),
    (
        "kunishou/OpenMathInstruct-1-1.8m-ja",
        "a.jsonl",
        lines,
        {"index": "1", "question_ja": "long question", "solution_ja": "long answer"},
        (
            "data: {format: prompt_completion, columns: {prompt: question_ja, completion: "
            "solution_ja}}"
        ),
    ),
    (
        "trl-lib/ultrafeedback_binarized",
        "a.jsonl",
        lines,
        {"chosen": CHAT, "rejected": CHAT, "score": 1.0},
        "columns: {messages: chosen}",
    ),
    (
        "Anthropic/hh-rlhf",
        "a.jsonl",
        lines,
        {"chosen": "Human: q", "rejected": "Human: r"},
        "pairs of a better and a worse text",
    ),
    (
        "trl-lib/kto-mix-14k",
        "a.jsonl",
        lines,
        {"prompt": "q", "completion": "bad", "label": False},
        "label: false marks an answer that",
    ),
    (
        "SQuAD",
        "a.jsonl",
        lines,
        {"context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}},
        "unknown form",
    ),
    (
        "pictures in the turns",
        "a.jsonl",
        lines,
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, CHAT[1]]},
        "found a part of type 'image_url'",
    ),
    (
        "a JSON object of records",
        "a.json",
        as_it_is,
        json.dumps({"data": [ALPACA]}, indent=1).encode(),
        "not JSON",
    ),
    (
        "Shift-JIS",
        "a.jsonl",
        as_it_is,
        lines(ALPACA).decode().encode("cp932"),
        "set data.encoding: cp932",
    ),
    (
        "UTF-16",
        "a.jsonl",
        as_it_is,
        lines(ALPACA).decode().encode("utf-16"),
        "set data.encoding: utf-16",
    ),
    ("a Word file", "a.docx", as_it_is, b"PK\x03\x04" + bytes(range(256)), "is a ZIP archive"),
    (
        "an old workbook",
        "a.xls",
        as_it_is,
        b"\xd0\xcf\x11\xe0" + bytes(99),
        "save its table as CSV",
    ),
    ("a tar archive", "a.tar.gz", as_it_is, gzip.compress(tarred(lines(ALPACA))), "a tar archive"),
    ("xz", "a.jsonl.xz", as_it_is, b"\xfd7zXZ\x00" + bytes(99), "packed by xz"),
    (
        "a page in place of a file",
        "a.jsonl",
        as_it_is,
        b"<!DOCTYPE html>\n<html><head></head></html>",
        "is an HTML page",
    ),
    (
        "a pointer of Git LFS",
        "a.parquet",
        as_it_is,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "git lfs pull",
    ),
    (
        "Shift-JIS table of Excel with a Japanese header",
        "a.csv",
        as_it_is,
        table({"質問": "港は？", "回答": "青。"}).decode().encode("cp932"),
        "set data.encoding: cp932",
    ),
    (
        "ISO-2022-JP table",
        "a.csv",
        as_it_is,
        table({"instruction": "港は？", "output": "青。"}).decode().encode("iso2022_jp"),
        "set data.encoding: iso2022_jp",
    ),
    (
        "a table with a Japanese header",
        "a.csv",
        table,
        {"指示": "訳して", "入力": "港", "出力": "port"},
        "{format: alpaca, columns: {instruction: 指示, input: 入力, output: 出力}}",
    ),
    (
        "a table with more texts than two",
        "a.csv",
        table,
        {"title": "t", "body": "long text", "summary": "short text"},
        "(which leaves 'title' unread)",
    ),
    (
        "an answer that is a number",
        "a.jsonl",
        lines,
        {"question": "1 + 1?", "answer": 2},
        "answer: found a number, must be text",
    ),
    (
        "several answers to a prompt",
        "a.jsonl",
        lines,
        {"prompt": "q", "responses": ["a", "b"]},
        "write records such as",
    ),
    (
        "roles in Japanese",
        "a.jsonl",
        lines,
        {"messages": [{"role": "ユーザー", "content": "q"}, {"role": "回答者", "content": "a"}]},
        "allowed: system, user, assistant, tool",
    ),
    (
        "nothing but a system turn",
        "a.jsonl",
        lines,
        {"messages": [{"role": "system", "content": "短く。"}]},
        "no assistant turn, so nothing to learn",
    ),
    (
        "records below a key",
        "a.jsonl",
        lines,
        {"data": [ALPACA]},
        "if 'data' holds the records, write that list alone",
    ),
    (
        "lines that end by a carriage return alone",
        "a.jsonl",
        as_it_is,
        (lines(ALPACA) * 2).replace(b"\n", b"\r"),
        "save it with line feeds",
    ),
]


def described(folder: Path, form: Form) -> list[str]:
    _, name, write, record, _ = form
    path = folder / name
    path.write_bytes(write(record))
    return list(lines_of(look(str(path), [])))


@pytest.mark.parametrize("form", ACCEPTED, ids=[form[0] for form in ACCEPTED])
def test_a_published_form_is_read_as_what_it_is(tmp_path: Path, form: Form) -> None:
    assert described(tmp_path, form)[0] == f"form            {form[4]}"


@pytest.mark.parametrize("form", REFUSED, ids=[form[0] for form in REFUSED])
def test_a_form_that_cannot_be_trained_on_is_refused_with_the_reason(
    tmp_path: Path, form: Form
) -> None:
    with pytest.raises(DataError) as raised:
        described(tmp_path, form)
    assert form[4] in raised.value.problems[0]


def main() -> None:
    for form in (*ACCEPTED, *REFUSED):
        with tempfile.TemporaryDirectory() as folder:
            try:
                reported = ", ".join(
                    " ".join(line.split()) for line in described(Path(folder), form)[:3]
                )
            except DataError as error:
                reported = f"refused: {error.problems[0].removeprefix(folder + '/')}"
        print(f"| {form[0]} | {form[1]} | {reported} |")


if __name__ == "__main__":
    main()
