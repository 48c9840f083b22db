import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.prepare_dataset.readers import record_files as readers
from components.prepare_dataset.readers.record_files import read_places
from components.prepare_dataset.records.records import RecordSource, read_records
from components.shared.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(st.characters(codec="utf-8"), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\[,\n港', max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=6), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_a_list_is_read_a_part_at_a_time_as_it_is_read_at_once(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None, plain: bool, part: int
) -> None:
    path = tmp_path_factory.mktemp("list") / "a.json"
    text = json.dumps(values, indent=indent, ensure_ascii=not plain)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(readers, "_LIST_PART", part)
        found = list(readers._listed(path, "utf-8"))
    assert [(place.record, place.number) for place in found] == [(value, number) for number, value in enumerate(values, start=1)]
    if indent is not None:
        top_level = [number for number, line in enumerate(text.split("\n"), start=1) if line.startswith(" ") and line[1] not in " ]}"]
        assert [place.line for place in found] == top_level


@pytest.mark.parametrize("part", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[{"a": 1},\n {"b": }]', 2, "Expecting value at column 8"),
        ('[{"a": 1},\n {"b": "x]', 2, "Unterminated string starting at at column 8"),
        ('[{"a": 1},\n\n {"b": 1} {', 3, "Expecting property name enclosed in double quotes at column 12"),
        ('[{"a": 1, "a": 2}]', 1, "key 'a' is given twice"),
    ],
)
def test_what_is_wrong_with_a_list_has_the_same_place_however_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int, text: str, line: int, said: str
) -> None:
    monkeypatch.setattr(readers, "_LIST_PART", part)
    (tmp_path / "a.json").write_text(text)
    *_, last = readers._listed(tmp_path / "a.json", "utf-8")
    assert last.line == line
    assert said in (last.problem or "")


def test_a_list_on_one_long_line_is_read_in_little_memory(tmp_path: Path) -> None:
    record = {"messages": [{"role": "user", "content": "x" * 5000}]}
    (tmp_path / "a.json").write_text("[" + ", ".join([json.dumps(record)] * 4000) + "]")
    tracemalloc.start()
    try:
        count = sum(place.record == record for place in read_places(tmp_path / "a.json", ".json"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 4000
    assert peak < 8e6  # of 20 MB


def _write_table(path: Path, table: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_columns_that_no_form_reads_are_left_in_the_file(tmp_path: Path, name: str) -> None:
    """Python has no nanoseconds, which pandas writes."""
    at = pa.array([1], pa.timestamp("ns"))
    _write_table(tmp_path / name, pa.table({"at": at, "prompt": ["q"], "completion": ["a"]}))
    (file,) = read_records(RecordSource(str(tmp_path / name)))
    assert len(file.conversations) == 1
    _write_table(tmp_path / name, pa.table({"at": at, "title": ["q"], "body": ["a"]}))
    with pytest.raises(DataError, match=r":1: cannot be read on \(.*; make or fetch the file again"):
        read_records(RecordSource(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_text_of_a_table_that_is_no_utf_8_is_told_with_its_row(tmp_path: Path, name: str) -> None:
    no_text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    _write_table(tmp_path / name, pa.table({"prompt": no_text, "completion": ["a"]}))
    with pytest.raises(DataError, match=r":1: cannot be read on \(.*utf-8"):
        read_records(RecordSource(str(tmp_path / name)))


@pytest.mark.parametrize("encoding", ["utf-8", "cp932"])
def test_a_last_line_that_is_cut_off_is_never_skipped(tmp_path: Path, encoding: str) -> None:
    content = "".join(json.dumps({"prompt": "港は？", "completion": f"港{n}"}, ensure_ascii=False) + "\n" for n in range(3)).encode(
        encoding
    )
    path = tmp_path / "a.jsonl"

    def read(part: bytes) -> int:
        path.write_bytes(part)
        (file,) = read_records(RecordSource(str(path), encoding=encoding), skip_bad=True)
        return len(file.conversations)

    assert read(content) == read(content[:-1]) == 3
    assert read(content[:-6] + b"\n") == 2  # a bad record, not the end of the file
    for lost in range(2, 20):
        with pytest.raises(DataError, match=r"a.jsonl:3: not "):
            read(content[:-lost])
