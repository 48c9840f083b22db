"""A file -> its records as plain data, each with its place, or what is wrong with it.

JSONL and CSV are read a line at a time, Parquet and Arrow a batch at a time, a JSON list a megabyte
or a record at a time.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from components.prepare_dataset.readers.other_files import other_file

_BOM = codecs.BOM_UTF8
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PARQUET, _ARROW_FILE = b"PAR1", b"ARROW1"
_ROWS_AT_ONCE = 1000
_LONGEST_CELL = 1 << 30
_MOST_TEXT_BYTES = 32_000_000
_FIRST_CHARACTERS = 4096
"""Of a file, in which a list begins if it is one."""
_LONGEST_WORD = 16
"""More than the characters of any JSON word or escape: `-Infinity`, a pair of `\\uXXXX`."""
_LIST_PART = 1 << 20
"""Bytes of a JSON list that are read at once."""
_GUESSES = ("cp932", "euc_jp")
"""Encodings in which Japanese text still comes; Windows' Shift-JIS first."""
_JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
_ISO_2022_JP = re.compile(rb"\x1b\$[@B]")
"""Its escape to Japanese characters (RFC 1468). All its bytes are UTF-8 too, and mean nothing
there."""
_END_OF_FILE = b"\x1a"
"""Ctrl-Z, by which some editors of Windows end a file."""
_NOT_JSON = "not JSON"
_EXTRA_DATA = "Extra data"
"""What `json` says of text behind a whole value."""
_LONGEST_INTEGER = 4300
"""Digits that Python reads as an integer (sys.int_info.default_max_str_digits)."""

ReadKeys = Callable[[Sequence[str]], set[str]]


@dataclass(frozen=True, slots=True)
class Place:
    """One record of a file."""

    line: int
    record: Any = None
    problem: str | None = None
    """Why it could not be read, in words that are the same for equal problems."""
    ends_file: bool = False
    """Whether the problem is the file's: nothing behind it can be read."""
    number: int | None = None
    """Of a list, which may have many records on one line: which of them, from 1."""


def read_places(
    path: Path, kind: str, encoding: str = "utf-8", read_keys: ReadKeys = set
) -> Iterator[Place]:
    """Every record of the file, in order; blank lines are none. `kind` is the suffix of its name,
    such as `.csv`. `read_keys` says which columns of Parquet and Arrow are read: of the others
    Python may not know the values.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(4096)
    if start.startswith(_PARQUET):
        return _batches(_parquet_batches(path, read_keys))
    if start.startswith(_ARROW_FILE) or kind == ".arrow":
        return _batches(_arrow_batches(path, read_keys))
    other = other_file(start, kind)
    if other is not None:
        return iter([Place(1, problem=other, ends_file=True)])
    escape = _ISO_2022_JP.search(start)
    if codecs.lookup(encoding).name == "utf-8" and escape is not None:
        problem = _wrong_encoding(start, escape.start())
        return iter([Place(1, problem=problem, ends_file=True)])
    if kind == ".txt":
        return iter([_whole_text(path, encoding)])
    if codecs.lookup(encoding).name == "utf-8" and start.startswith(_UTF16):
        return iter([Place(1, problem=_wrong_encoding(start, 0), ends_file=True)])
    if kind in (".csv", ".tsv"):
        return _table_rows(path, "\t" if kind == ".tsv" else _delimiter(start), encoding)
    if start.removeprefix(_BOM).lstrip().startswith(b"[") and _is_list(path):
        return _listed(path, encoding)
    return _json_lines(path, encoding)


def _whole_text(path: Path, encoding: str) -> Place:
    """A text file is one record."""
    if path.stat().st_size > _MOST_TEXT_BYTES:
        return Place(
            1,
            problem=(
                f"a text file of more than {_MOST_TEXT_BYTES:,} bytes; cut it into several, or "
                "write JSONL with a text each"
            ),
        )
    try:
        return Place(
            1,
            {
                "text": path.read_text(
                    encoding="utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
                )
            },
        )
    except UnicodeError as error:
        return Place(1, problem=_not_decoded(error, encoding), ends_file=True)


def _json_lines(path: Path, encoding: str) -> Iterator[Place]:
    if codecs.lookup(encoding).name != "utf-8":
        yield from _decoded_json_lines(path, encoding)
        return
    for number, line in _numbered_lines(path):
        place = _whole_line(_parsed(line.rstrip(b"\r\n"), number), ends=line.endswith(b"\n"))
        if place.problem is not None and "it reads as" in place.problem:
            yield replace(place, ends_file=True)
            return  # every other line would be the same problem
        yield place


def _whole_line(place: Place, *, ends: bool) -> Place:
    """The place; a last line that does not end and is no JSON is where the file was cut off."""
    if ends or place.problem is None or _is_whole(place.problem):
        return place
    return replace(
        place,
        problem=f"{place.problem}; the file may be cut off here, as the line has no end",
        ends_file=True,
    )


def _is_whole(problem: str) -> bool:
    """Whether the line of this problem does not break off."""
    return not problem.startswith(_NOT_JSON) or _EXTRA_DATA in problem


def _decoded_json_lines(path: Path, encoding: str) -> Iterator[Place]:
    number = 0
    try:
        for number, line in enumerate(_decoded_lines(path, encoding), start=1):
            content = line.removeprefix("\ufeff").rstrip("\r\n")
            if content and not content.isspace():
                yield _whole_line(_parsed_text(content, number), ends=line.endswith("\n"))
    except UnicodeError as error:
        yield Place(number + 1, problem=_not_decoded(error, encoding), ends_file=True)


def _decoded_lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines with their line feed, decoded no further than they are asked for: an error is one of
    the next line."""
    rest = ""
    with path.open("rb") as stream:
        for part in codecs.iterdecode(stream, encoding):
            *lines, rest = (rest + part).split("\n")
            yield from (f"{line}\n" for line in lines)
    if rest:
        yield rest


def _batches(batches: Iterator[pa.RecordBatch]) -> Iterator[Place]:
    """Rows, numbered from 1. A struct has every key that any row has: null ones are left out at
    every depth below the columns."""
    number = 0
    try:
        for batch in batches:
            for record in batch.to_pylist():
                number += 1
                yield Place(number, {key: _without_nulls(value) for key, value in record.items()})
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:200]
        yield Place(
            number + 1,
            problem=f"cannot be read on ({reason}); make or fetch the file again",
            ends_file=True,
        )


def _parquet_batches(path: Path, read_keys: ReadKeys) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        wanted = read_keys(file.schema_arrow.names)
        yield from file.iter_batches(
            batch_size=_ROWS_AT_ONCE,
            columns=[name for name in file.schema_arrow.names if name in wanted],
        )


def _arrow_batches(path: Path, read_keys: ReadKeys) -> Iterator[pa.RecordBatch]:
    """Of an Arrow file, or of an Arrow stream, as `datasets` saves it."""
    with pa.memory_map(str(path)) as source:
        is_file = source.read(len(_ARROW_FILE)) == _ARROW_FILE
        source.seek(0)
        reader: Any = ipc.open_file(source) if is_file else ipc.open_stream(source)
        wanted = read_keys(reader.schema.names)
        places = [place for place, name in enumerate(reader.schema.names) if name in wanted]
        if is_file:
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = reader
        yield from (batch.select(places) for batch in batches)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _delimiter(start: bytes) -> str:
    """Of a CSV file, by its first line: the most frequent of comma, semicolon and tab."""
    header = start.split(b"\n", 1)[0]
    return max(",;\t", key=lambda char: header.count(char.encode()))


def _table_rows(path: Path, delimiter: str, encoding: str) -> Iterator[Place]:
    """Rows of CSV or TSV as records of text, numbered by the line on which they end."""
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(
        encoding="utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding, newline=""
    ) as text:
        rows = csv.DictReader(text, delimiter=delimiter, strict=True)
        try:
            names = rows.fieldnames or ()
            if len(set(names)) < len(names):
                yield Place(
                    1,
                    problem=f"the header names a column twice: {', '.join(names)}; rename one",
                    ends_file=True,
                )
                return
            for row in rows:
                yield _table_row(row, rows.line_num, num_fields=len(names))
        except UnicodeError as error:
            yield Place(rows.line_num + 1, problem=_not_decoded(error, encoding), ends_file=True)
        except csv.Error as error:
            yield Place(
                rows.reader.line_num, problem=f"not CSV ({error}); correct the file", ends_file=True
            )


def _table_row(row: dict[Any, Any], line: int, *, num_fields: int) -> Place:
    if None in row or None in row.values():
        return Place(
            line,
            problem=(
                f"has other than {num_fields} fields, as the header has; quote text that holds a "
                "delimiter"
            ),
        )
    return Place(line, row)


def _is_list(path: Path) -> bool:
    """Whether a file that begins with a bracket is one JSON list: its first line alone is no JSON,
    or there is no other."""
    with path.open("rb") as stream:
        lines = iter(lambda: stream.readline(_LIST_PART), b"")
        first = next((line for line in lines if line.removeprefix(_BOM).strip()), b"")
        if len(first) == _LIST_PART:
            return True
        others = any(part.strip() for part in iter(lambda: stream.read(_LIST_PART), b""))
    return not others or _parsed(first.removeprefix(_BOM), 1).problem is not None


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, numbered from 1, split at line feeds alone: JSON text may hold
    U+2028."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                content = line.removeprefix(_BOM)
            else:
                content = line
            if content.strip() not in (b"", _END_OF_FILE):
                yield number, content


def _parsed(line: bytes, number: int) -> Place:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and _guessed_encoding(line) is None:
            return Place(
                number,
                problem=f"{_NOT_JSON} (it ends within a character); write one JSON object a line",
            )
        return Place(number, problem=_wrong_encoding(line, error.start))
    return _parsed_text(text, number)


def _parsed_text(line: str, number: int) -> Place:
    try:
        return Place(number, loads(line))
    except json.JSONDecodeError as error:
        how = _how_to_write(error)
        return Place(number, problem=f"{_NOT_JSON} ({error.msg} at column {error.colno}); {how}")
    except DuplicateKeyError as error:
        return Place(number, problem=str(error))
    except RecursionError:
        return Place(number, problem="not a record: nested too deeply")


def _how_to_write(error: json.JSONDecodeError) -> str:
    if error.msg == _EXTRA_DATA and "\r" in error.doc:
        return "its lines end by a carriage return alone: save it with line feeds"
    if error.doc.strip() == "{":
        return "write each record on one line, or all of them as a list: [{…}, {…}]"
    return "write one JSON object a line"


def _listed(path: Path, encoding: str) -> Iterator[Place]:
    """The records of a JSON list, each with the line on which it begins."""
    with path.open("rb") as stream:
        text = _ListText(stream, encoding)
        try:
            if not text.begin():  # it is there as a byte
                yield Place(
                    1,
                    problem=f"no JSON when read as {encoding}; correct data.encoding",
                    ends_file=True,
                )
                return
            number = 0
            while text.next_value():
                record = text.record()
                number += 1
                yield Place(text.line, record, number=number)
        except UnicodeError as error:
            yield Place(text.line_of(error), problem=_not_decoded(error, encoding), ends_file=True)
        except json.JSONDecodeError as error:
            line, column = text.place_of(error)
            yield Place(
                line,
                problem=(
                    f"the JSON list cannot be read on ({error.msg} at column {column}); correct "
                    "the file"
                ),
                ends_file=True,
            )
        except DuplicateKeyError as error:
            yield Place(text.line, problem=str(error), ends_file=True)
        except RecursionError:
            yield Place(text.line, problem="not a record: nested too deeply", ends_file=True)


class _ListText:
    """The text of a JSON list, of which one record and one part of the file are in memory at a
    time."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream, self._decode = stream, codecs.getincrementaldecoder(encoding)().decode
        self._decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
        self._text, self._position, self._ended = "", 0, False
        self._lines_before, self._columns_before = 0, 0
        """Line feeds before the text in memory, and the characters between the last of them and the
        text."""
        self._counted = 0
        self.line = 1
        """On which the record begins."""

    def begin(self) -> bool:
        """The opening bracket is read; False where there is none."""
        while "[" not in self._text and len(self._text) < _FIRST_CHARACTERS and not self._ended:
            self._read()
        self._text = self._text.removeprefix("\ufeff")
        self._position = self._text.find("[") + 1
        return self._position > 0

    def next_value(self) -> bool:
        """The next record begins here; False at the end of the list."""
        while True:
            while self._position < len(self._text) and self._text[self._position] in " \t\r\n,":
                self._position += 1
            if self._position < len(self._text) or self._ended:
                break
            self._read()
        self.line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._text[self._position : self._position + 1] != "]"

    def record(self) -> Any:
        """Raises JSONDecodeError, DuplicateKeyError or RecursionError."""
        while True:
            try:
                record, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._ended or not self._is_cut_off(error):
                    raise
            else:
                if end < len(self._text) or self._ended:
                    self._position = end
                    return record
            self._read()

    def _is_cut_off(self, error: json.JSONDecodeError) -> bool:
        """Whether more of the file may put it right: a text without end, or a value that breaks off
        at the end of what is read."""
        return error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _LONGEST_WORD

    def place_of(self, error: json.JSONDecodeError) -> tuple[int, int]:
        """(line, column) in the file."""
        column = error.colno + (self._columns_before if error.lineno == 1 else 0)
        return self._lines_before + error.lineno, column

    def line_of(self, error: UnicodeError) -> int:
        """Of the byte that is none of the encoding."""
        if isinstance(error, UnicodeDecodeError):
            before = error.object[: error.start]
        else:
            before = b""
        return self._lines_before + self._text.count("\n") + before.count(b"\n") + 1

    def _read(self) -> None:
        """As much more as is in memory, at least 1 MB: what is read anew for a long record stays in
        proportion to it."""
        used = self._text[: self._position]
        self._lines_before += used.count("\n")
        last = used.rfind("\n")
        if last >= 0:
            self._columns_before = len(used) - last - 1
        else:
            self._columns_before = self._columns_before + len(used)
        self.line += used.count("\n", self._counted)
        self._text = self._text[self._position :]
        self._counted = self._position = 0
        content = self._stream.read(max(_LIST_PART, len(self._text)))
        self._ended = not content
        self._text += self._decode(content, self._ended)


class DuplicateKeyError(ValueError):
    """An object has one key twice, so that one of the values would be lost."""


def loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_int=_integer)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DuplicateKeyError(f"key {twice!r} is given twice in one object; remove one")
    return found


def _integer(digits: str) -> int | str:
    """Longer numbers than Python reads as integers stay text: nothing of a conversation is a
    number."""
    if len(digits) <= _LONGEST_INTEGER:
        return int(digits)
    return digits


def _not_decoded(error: UnicodeError, encoding: str) -> str:
    """Why a text file is not in the encoding that `data.encoding` names."""
    if codecs.lookup(encoding).name == "utf-8" and isinstance(error, UnicodeDecodeError):
        return _wrong_encoding(error.object, error.start)
    if isinstance(error, UnicodeDecodeError):
        reason = error.reason
    else:
        reason = str(error)
    return (
        f"not {encoding} ({reason}); correct data.encoding, or leave it out and save the file as "
        "UTF-8"
    )


def _wrong_encoding(content: bytes, offset: int) -> str:
    found = f"not UTF-8 (byte {content[offset]:#04x} at offset {offset})"
    if _ISO_2022_JP.match(content, offset):
        guess = "iso2022_jp"
    else:
        guess = _guessed_encoding(content)
    if guess is None:
        return f"{found}; save the file as UTF-8"
    return f"{found}, it reads as {guess}; save the file as UTF-8, or set data.encoding: {guess}"


def _guessed_encoding(content: bytes) -> str | None:
    if content.startswith(_UTF16):
        return "utf-16"
    for name in _GUESSES:
        try:
            text = codecs.getincrementaldecoder(name)().decode(
                content
            )  # which may end within a character
        except UnicodeDecodeError:
            continue
        if _JAPANESE.search(text):
            return name
    return None
