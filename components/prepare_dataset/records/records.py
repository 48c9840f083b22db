"""Files of records -> conversations, or every record that is none, each by `file:line`.

Conversations are kept on disk (stored.py); 100,000 of them are read and checked in about 4 s.
"""

import codecs
import hashlib
import io
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from components.prepare_dataset.packing.stored import Chosen, Conversations
from components.prepare_dataset.readers.bad_records import (
    Problems,
    bad_record_lines,
    first_bad_records,
    joined,
)
from components.prepare_dataset.readers.record_files import Place, read_places
from components.prepare_dataset.readers.source_files import (
    files_of,
    kind_of_name,
    readable_source,
    unpacked,
)
from components.prepare_dataset.records.conversations import (
    Conversation,
    Message,
    kind_of,
    read_conversation,
)
from components.prepare_dataset.records.forms import Form, Text, Tokens, form_named, turn_keys
from components.prepare_dataset.records.recognition import (
    FIRST_RECORDS,
    missing_columns,
    nearest,
    other_form,
    read_keys,
    recognised,
    unknown_form,
    wrong_kinds,
)
from components.prepare_dataset.records.texts import text_conversation, tokens_conversation
from components.prepare_dataset.records.written_turns import with_turns
from components.shared.errors import DataError
from components.shared.machine import user_path

__all__ = ["Conversation", "Message", "RecordFile", "RecordSource", "read_records"]

_FORM = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'


@dataclass(frozen=True)
class RecordSource:
    """A file, folder, pattern or object, and how its records are read."""

    path: str
    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    split: str | None = None


@dataclass(frozen=True)
class RecordFile:
    conversations: Chosen[Conversation]
    sha256: str
    """Of the file's bytes, in hex; of several files, of their digests."""
    form: str = "messages"
    """What its records were read as."""
    skipped: Problems = field(default_factory=dict)
    """Bad records, which were left out."""


def read_records(*sources: RecordSource, skip_bad: bool = False) -> tuple[RecordFile, ...]:
    """The conversations of each file or object, in its order, all kept in one place; keys of a
    record that its form does not name are left unread. With `skip_bad` records that are no
    conversation are left out and noted.

    Raises:
        StoreError: an object cannot be read.
        DataError: a file cannot be read, is empty, or holds records that are no conversation; equal
            problems are one line, the first 20 lines of all files together are shown, and the
            number of the rest.
    """
    conversations = Conversations()
    files: list[RecordFile] = []
    found: list[Problems] = []
    lines: list[str] = []
    for source in sources:
        try:
            file, problems = _read_source(source, conversations, skip_bad=skip_bad)
            files.append(file)
            found.append(problems)
        except OSError as error:
            lines.append(_unreadable(source.path, error))
        except DataError as error:
            lines.extend(error.problems)
    problems = joined(found)
    if problems or lines:
        raise DataError(*first_bad_records([*bad_record_lines(problems), *lines]))
    return tuple(files)


def _read_source(
    source: RecordSource, conversations: Conversations, *, skip_bad: bool
) -> tuple[RecordFile, Problems]:
    """What could be read of the source's files, added to `conversations`, and the problems that are
    not to be skipped.

    Raises:
        StoreError, DataError, OSError: a file cannot be read.
    """
    _known_encoding(source)
    start = len(conversations)
    problems, skipped = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    if skip_bad:
        of_records = skipped
    else:
        of_records = problems
    files = [
        _read_file(source, name, conversations, problems, of_records)
        for name in files_of(source.path, source.split)
    ]
    found = Chosen(conversations, range(start, len(conversations)))
    if not found and skipped:
        raise DataError(
            f"{source.path}: every record is bad, none is left",
            *first_bad_records(bad_record_lines(skipped)),
        )
    if not found and not problems:
        raise DataError(f"{source.path}: holds no record; write one conversation a line: {_FORM}")
    digests = [sha256 for sha256, _ in files]
    if len(digests) == 1:
        sha256 = digests[0]
    else:
        sha256 = hashlib.sha256(" ".join(digests).encode()).hexdigest()
    return RecordFile(
        found, sha256, ", ".join(dict.fromkeys(form for _, form in files)), skipped
    ), problems


def _read_file(
    source: RecordSource,
    name: str,
    conversations: Conversations,
    of_file: dict[str, list[str]],
    of_records: dict[str, list[str]],
) -> tuple[str, str]:
    """(sha256, form) of the file, whose conversations are added to the others, and its problems to
    those of files or of records."""
    with readable_source(name) as path:
        before = path.stat()
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        reader = _RecordReader(source, name, of_file, of_records)
        with unpacked(path, name) as plain:
            wanted = partial(read_keys, columns=source.columns)
            places = read_places(plain, kind_of_name(name), source.encoding, wanted)
            for conversation in reader.read(places):
                conversations.append(conversation)
        after = path.stat()
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise DataError(f"{name}: changed while it was read; start again when it is written")
    return sha256, reader.form.name if reader.form else source.format


def _known_encoding(source: RecordSource) -> None:
    try:
        codecs.lookup(source.encoding)
        io.TextIOWrapper(
            io.BytesIO(), encoding=source.encoding
        )  # refuses rot13 and others that are not of text
    except (LookupError, ValueError):
        raise DataError(
            f"data.encoding: found {source.encoding!r}, must be an encoding that Python knows, "
            "such as cp932"
        ) from None


class _RecordReader:
    """Reads records of one file as one form: that of its first records, or the spec's."""

    def __init__(
        self,
        source: RecordSource,
        name: str,
        of_file: dict[str, list[str]],
        of_records: dict[str, list[str]],
    ) -> None:
        self._source, self._name = source, name
        self._of_file, self._of_records = of_file, of_records
        self.form: Form | None = None if source.format == "auto" else form_named(source.format)
        if self.form is not None:
            _known_columns(self.form, source.columns)

    def read(self, places: Iterator[Place]) -> Iterator[Conversation]:
        """The conversations of all records that are one; the problems of the others are noted."""
        texts = turn_keys(self.form, self._source.columns)
        for place in self._recognised(_with_turns(place, texts) for place in places):
            conversation = self._read_one(place)
            if conversation is not None:
                yield conversation

    def _recognised(self, places: Iterator[Place]) -> Iterator[Place]:
        """The same records, the form being known by the time of the first that has one."""
        while self.form is None:
            first = list(islice(places, FIRST_RECORDS))
            records = [place.record for place in first if isinstance(place.record, dict)]
            self.form = recognised(records, self._source.columns)
            yield from first
            if len(first) < FIRST_RECORDS:
                return
        yield from places

    def _read_one(self, place: Place) -> Conversation | None:
        """The record's conversation; None, and its problems noted, where it is none."""
        if place.number is None:
            number = ""
        else:
            number = f" (record {place.number})"
        where = f"{self._name}:{place.line}{number}"
        if place.problem is not None:
            found = [place.problem]
        else:
            found = self._conversation(place.record, where)
        if isinstance(found, Conversation):
            return found
        if place.ends_file:
            problems = self._of_file
        else:
            problems = self._of_records
        for problem in dict.fromkeys(found):
            problems[problem].append(where)
        return None

    def _conversation(self, record: Any, where: str) -> Conversation | list[str]:
        if not isinstance(record, dict):
            return [f"found {kind_of(record)}, must be an object: {_FORM}"]
        columns = self._source.columns
        if self.form is None:
            return [_no_form(record, columns)]
        missing = missing_columns(self.form, record, columns)
        if missing is not None:
            return [missing]
        other = self._source.format == "auto" and other_form(self.form, record, columns)
        if other:
            return [other]
        # Turns written for a template with documents; in any other form it is a column left unread.
        if self.form.name == "messages" and record.get("documents"):
            return ["documents: not supported; remove it from the record"]
        if self.form.name == "prompt_completion" and record.get("label") is False:
            return [
                (
                    "label: false marks an answer that is not wanted; remove such records, or set "
                    "data.on_bad_record: skip"
                )
            ]
        said = self.form.read(self.form.values(record, columns))
        if isinstance(said, Text):
            return text_conversation(where, said.text)
        if isinstance(said, Tokens):
            return tokens_conversation(where, said.ids, said.labels, said.mask)
        return read_conversation(where, said.turns, said.tools)


def _with_turns(place: Place, texts: Collection[str]) -> Place:
    record = with_turns(place.record, texts)
    if record is place.record:
        return place
    return replace(place, record=record)


def _no_form(record: dict[str, Any], columns: Mapping[str, str]) -> str:
    if "messages" in record:
        return f"messages: found {kind_of(record['messages'])}, must be a list of turns: {_FORM}"
    near = nearest(record, columns)
    if near is None:
        return unknown_form(record)
    problem = missing_columns(near, record, columns) or wrong_kinds(near, record, columns)
    return problem or unknown_form(record)


def _known_columns(form: Form, columns: Mapping[str, str]) -> None:
    unknown = [name for name in columns if name not in form.columns]
    if unknown:
        allowed = ", ".join(form.columns)
        raise DataError(
            f"data.columns: found {', '.join(map(repr, unknown))}, allowed for {form.name}: "
            f"{allowed}"
        )


def _unreadable(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        near = sorted(str(found) for found in user_path(path).parent.glob("*.json*"))
        return f"{path}: no such file" + (
            f"; there are: {', '.join(near[:8])}"
            if near
            else "; name a file of records that is there"
        )
    return f"{path}: cannot be read: {error.strerror}"
