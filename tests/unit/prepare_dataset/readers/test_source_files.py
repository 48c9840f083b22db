"""Every kind of file, folder and address that `data.train` may name."""

import csv
import gzip
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.prepare_dataset.readers.source_files import files_of
from components.prepare_dataset.records.records import RecordFile, RecordSource, read_records
from components.prepare_dataset.templates.chat_template import read_template
from components.shared.errors import DataError
from components.shared.store.storage import open_store
from tests.support.s3_server import S3Server

RECORDS = [
    {"instruction": f"港{n}は？", "input": "", "output": f'青{n}, です。\n"以上"'} for n in range(3)
]
TALKS = [
    {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "weight": 1},
        ],
        "id": 1,
    },
    {
        "messages": [{"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}],
        "id": None,
    },
]


def _table(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, RECORDS[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(RECORDS)
    return text.getvalue().encode()


def _parquet(records: list[dict[str, Any]] = RECORDS) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink)
    return sink.getvalue()


def _arrow(new: Callable[..., Any]) -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist(RECORDS)
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()
KINDS: dict[str, bytes] = {
    "a.jsonl": LINES,
    "a.ndjson": LINES,
    "bom.jsonl": b"\xef\xbb\xbf" + LINES,
    "a.json": json.dumps(RECORDS, indent=1).encode(),
    "a.csv": _table(","),
    "semicolons.csv": _table(";"),
    "bom.csv": b"\xef\xbb\xbf" + _table(","),
    "a.tsv": _table("\t"),
    "a.parquet": _parquet(),
    "file.arrow": _arrow(pa.ipc.new_file),
    "stream.arrow": _arrow(pa.ipc.new_stream),
}


def _packed(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content)
    return pa.compress(content, codec="zstd", asbytes=True) if name.endswith(".zst") else content


def _read(path: Path, content: bytes | None = None, **how: Any) -> RecordFile:
    if content is not None:
        path.write_bytes(content)
    (file,) = read_records(RecordSource(str(path), **how))
    return file


def _problem(path: Path, content: bytes, **how: Any) -> str:
    with pytest.raises(DataError) as raised:
        _read(path, content, **how)
    (problem,) = raised.value.problems
    return problem.removeprefix(f"{path.parent}/")


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_any_kind_gives_the_same_conversations(
    tmp_path: Path, name: str, packed: str
) -> None:
    file = _read(tmp_path / f"{name}{packed}", _packed(packed, KINDS[name]))
    assert [found.messages[0].content for found in file.conversations] == [
        record["instruction"] for record in RECORDS
    ]
    assert [found.messages[1].content for found in file.conversations] == [
        record["output"] for record in RECORDS
    ]
    assert file.form == "alpaca"


def test_a_struct_of_parquet_has_only_the_keys_that_are_not_null(tmp_path: Path) -> None:
    file = _read(tmp_path / "a.parquet", _parquet(TALKS))
    assert [[message.content for message in found.messages] for found in file.conversations] == [
        ["q", "a"],
        ["r", "b"],
    ]
    assert [found.where for found in file.conversations] == [
        f"{tmp_path}/a.parquet:1",
        f"{tmp_path}/a.parquet:2",
    ]


def test_a_name_in_the_other_unicode_form_is_the_same_file(tmp_path: Path) -> None:
    decomposed = tmp_path / unicodedata.normalize("NFD", "データ.jsonl")
    decomposed.write_bytes(LINES)
    composed = tmp_path / unicodedata.normalize("NFC", decomposed.name)
    assert composed != decomposed
    assert files_of(str(composed)) == [str(decomposed)]


def test_turns_in_a_cell_are_json(tmp_path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([["messages"], [json.dumps(TALKS[0]["messages"])]])
    assert [
        message.content
        for message in _read(tmp_path / "a.csv", text.getvalue().encode()).conversations[0].messages
    ] == ["q", "a"]


def test_cp932_tables_are_read_when_the_encoding_is_named(tmp_path: Path) -> None:
    content = _table(",").decode().encode("cp932")
    assert "it reads as cp932" in _problem(tmp_path / "a.csv", content)
    assert len(_read(tmp_path / "a.csv", encoding="cp932").conversations) == 3


@pytest.mark.parametrize(
    ("name", "content", "reported"),
    [
        (
            "a.jsonl.gz",
            gzip.compress(LINES * 1000)[:-40],
            "a.jsonl.gz: gzip that cannot be unpacked (Truncated compressed stream)",
        ),
        (
            "a.jsonl.zst",
            _packed(".zst", LINES * 1000)[:-9],
            "a.jsonl.zst: zstd that cannot be unpacked",
        ),
        ("a.parquet", _parquet()[:-30], "a.parquet:1: cannot be read on ("),
        ("a.arrow", KINDS["stream.arrow"][:-300], "a.arrow:1: cannot be read on ("),
        (
            "a.csv",
            b"prompt,completion\nq,a,b\n",
            "a.csv:2: has other than 2 fields, as the header has",
        ),
        ("a.csv", b"prompt,prompt\nq,a\n", "a.csv:1: the header names a column twice"),
        ("a.csv", b'prompt,completion\n"q,a\n', "a.csv:2: not CSV ("),
        ("a.csv", b"prompt,completion\n", "a.csv: holds no record"),
    ],
)
def test_a_damaged_file_is_one_problem_with_its_place(
    tmp_path: Path, name: str, content: bytes, reported: str
) -> None:
    assert _problem(tmp_path / name, content).startswith(reported)


@pytest.mark.parametrize(
    ("name", "content", "encoding", "reported"),
    [
        (
            "a.jsonl",
            LINES.decode().encode("cp932") * 900 + b'{"a": "\x81\xff"}\n',
            "cp932",
            "a.jsonl:2701: not cp932 (",
        ),
        (
            "a.jsonl",
            LINES,
            "ascii",
            (
                "a.jsonl:1: not ascii (ordinal not in range(128)); correct data.encoding, or "
                "leave it out"
            ),
        ),
        ("a.jsonl", LINES, "undefined", "a.jsonl:1: not undefined (undefined encoding); correct"),
        (
            "a.json",
            json.dumps(RECORDS, indent=1, ensure_ascii=False).encode(),
            "ascii",
            "a.json:3: not ascii (ordinal not in range(128)); correct",
        ),
        (
            "a.json",
            KINDS["a.json"],
            "cp037",
            "a.json:1: no JSON when read as cp037; correct data.encoding",
        ),
        (
            "a.csv",
            KINDS["a.csv"],
            "ascii",
            "a.csv:1: not ascii (ordinal not in range(128)); correct",
        ),
        (
            "a.csv",
            KINDS["a.csv"],
            "undefined",
            "a.csv:1: not undefined (undefined encoding); correct",
        ),
        (
            "a.jsonl",
            LINES,
            "rot13",
            "data.encoding: found 'rot13', must be an encoding that Python knows, such as cp932",
        ),
        ("a.jsonl", LINES, "locale", "data.encoding: found 'locale', must be"),
        ("a.jsonl", LINES, "cp\x00932", "data.encoding: found 'cp\\x00932', must be"),
    ],
)
def test_an_encoding_that_the_file_is_not_in_is_one_problem(
    tmp_path: Path, name: str, content: bytes, encoding: str, reported: str
) -> None:
    assert _problem(tmp_path / name, content, encoding=encoding).startswith(reported)


@pytest.mark.parametrize("encoding", ["cp932", "utf-16", "utf-16-le", "utf-8-sig"])
def test_lines_of_another_encoding_keep_their_numbers(tmp_path: Path, encoding: str) -> None:
    lines = (
        "\n"
        + LINES.decode()
        .replace("港", "਍港" if encoding.startswith("utf") else "港")
        .replace("\n", "\r\n")
        + "\n{}"
    )
    problem = _problem(tmp_path / "a.jsonl", lines.encode(encoding), encoding=encoding)
    assert problem.startswith("a.jsonl:6: instruction; output or response: missing or empty")


@pytest.mark.parametrize("encoding", ["cp932", "utf-16"])
def test_lines_of_another_encoding_are_read_when_it_is_named(tmp_path: Path, encoding: str) -> None:
    file = _read(tmp_path / "a.jsonl", LINES.decode().encode(encoding), encoding=encoding)
    assert [found.messages[0].content for found in file.conversations] == [
        record["instruction"] for record in RECORDS
    ]


@pytest.mark.parametrize("source", ["~/a.jsonl", "~/*.jsonl", "~"])
def test_a_tilde_is_the_home_folder_wherever_a_file_is_named(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (file,) = read_records(RecordSource(source))
    assert len(file.conversations) == 3


def test_a_template_below_the_home_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jinja").write_text("{{ messages }}")
    assert read_template(tmp_path / "model", "~/a.jinja", {}) == ("~/a.jinja", "{{ messages }}")


@pytest.mark.parametrize(
    ("source", "reported"),
    [
        (
            "~nosuchuser/x.jsonl",
            "~nosuchuser/x.jsonl: no such file; name a file of records that is there",
        ),
        ("~nosuchuser/*.jsonl", "~nosuchuser/*.jsonl: holds no file of records; allowed: .jsonl"),
        ("a\0.jsonl", "a\\x00.jsonl: no name of a file, it holds a NUL character"),
        (
            "a**b.jsonl",
            (
                "a**b.jsonl: no pattern of files (Invalid pattern: '**' can only be an entire "
                "path component). Fix: write *"
            ),
        ),
    ],
)
def test_a_name_that_stands_for_no_file_is_one_problem(source: str, reported: str) -> None:
    with pytest.raises(DataError) as raised:
        read_records(RecordSource(source))
    (problem,) = raised.value.problems
    assert problem.startswith(reported)


def test_a_folder_gives_its_files_of_records_by_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in (
        "b.jsonl",
        "deep/a.csv.gz",
        "README.md",
        "dataset_info.json",
        "state.json",
        ".hidden.jsonl",
    ):
        (tmp_path / name).write_bytes(_packed(name, KINDS["a.csv"] if ".csv" in name else LINES))
    assert files_of(str(tmp_path)) == [f"{tmp_path}/b.jsonl", f"{tmp_path}/deep/a.csv.gz"]
    file = _read(tmp_path)
    assert [found.where.removeprefix(f"{tmp_path}/") for found in file.conversations[:1]] == [
        "b.jsonl:1"
    ]
    assert len(file.conversations) == 6


@pytest.mark.parametrize("source", ["~/train_data", "./train_data", "train_data/"])
def test_a_word_in_the_name_of_the_source_itself_is_no_split(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dev"
    monkeypatch.setenv("HOME", str(folder))
    (folder / "train_data").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in ("a.jsonl", "test.jsonl"):
        (folder / "train_data" / name).write_bytes(LINES)
    assert len(files_of(source)) == 2
    assert [Path(name).name for name in files_of(source, "test")] == ["test.jsonl"]


def test_a_pattern_gives_the_files_that_fit_it(tmp_path: Path) -> None:
    for name in ("a-1.jsonl", "a-2.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(LINES)
    assert files_of(f"{tmp_path}/a-*.jsonl") == [f"{tmp_path}/a-1.jsonl", f"{tmp_path}/a-2.jsonl"]
    assert files_of(str(tmp_path / "a-1.jsonl")) == [str(tmp_path / "a-1.jsonl")]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    assert len(_read(tmp_path / "a[1].jsonl", LINES).conversations) == 3


@pytest.mark.parametrize(
    ("source", "reported"),
    [
        (
            "https://example.com/a.jsonl",
            "found https://, allowed: a path, s3://bucket/… or hf://owner/name; download",
        ),
        ("gs://bucket/a.jsonl", "found gs://, allowed"),
    ],
)
def test_another_address_is_refused_with_what_to_do(source: str, reported: str) -> None:
    with pytest.raises(DataError) as raised:
        files_of(source)
    assert reported in str(raised.value)


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(
        DataError, match=r"holds no file of records; allowed: .jsonl, .ndjson, .json, .csv"
    ):
        files_of(str(tmp_path))


def test_prefixes_and_patterns_of_a_store_give_their_objects(s3_env: S3Server) -> None:
    store = open_store(s3_env.fresh_uri())
    for name in ("in/a.jsonl", "in/b.csv", "in/README.md", "other.jsonl"):
        store.write_bytes(name, KINDS["a.csv"] if name.endswith("csv") else LINES)
    assert files_of(f"{store.uri}/in/") == [f"{store.uri}/in/a.jsonl", f"{store.uri}/in/b.csv"]
    assert files_of(f"{store.uri}/in/*.jsonl") == [f"{store.uri}/in/a.jsonl"]
    (file,) = read_records(RecordSource(f"{store.uri}/in/"))
    assert len(file.conversations) == 6
    with pytest.raises(DataError, match="no object of records is there"):
        files_of(f"{store.uri}/nothing/")
