"""Byte strings and numbers, as many as there may be, kept in files instead of memory.

A file has no name, so that nothing is left of it however this process ends. It is read by position
and not mapped into memory: what was read does not count as this process's memory.
"""

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import overload

from components.shared.errors import SpaceError

_BUFFERED = 1 << 20
_NUMBERS_AT_ONCE = 1024


class Numbers(Sequence[int]):
    """C numbers of one type code of `array`, appended to in order, read by place. Of each thousand
    the last one that was read stays in memory, so reading in order is fast. Lives in `$TMPDIR`."""

    def __init__(self, code: str) -> None:
        self._fd: int | None = None
        self._code = code
        self._size = array(code).itemsize
        self._waiting = array(code)
        self._num_written = 0
        self._read = array(code)
        self._read_start = 0

    def append(self, value: int) -> None:
        """Raises SpaceError where the disk is full, OverflowError where the type cannot hold the
        value."""
        self._waiting.append(value)
        if len(self._waiting) == _NUMBERS_AT_ONCE:
            self._flush()

    def __len__(self) -> int:
        return self._num_written + len(self._waiting)

    def __iter__(self) -> Iterator[int]:
        starts = range(0, self._num_written, _NUMBERS_AT_ONCE)
        return chain(chain.from_iterable(map(self._at, starts)), iter(self._waiting))

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        if index < 0:
            index += len(self)
        if index >= self._num_written:
            return self._waiting[index - self._num_written]
        place = index % _NUMBERS_AT_ONCE
        if index - place != self._read_start or not self._read:
            self._read, self._read_start = self._at(index - place), index - place
        return self._read[place]

    def _flush(self) -> None:
        if self._fd is None:
            self._fd = _file_without_name(self)
        _write(self._fd, memoryview(self._waiting).cast("B"))
        self._num_written += len(self._waiting)
        self._waiting = array(self._code)

    def _at(self, start: int) -> "array[int]":
        assert self._fd is not None
        first, last = start * self._size, (start + _NUMBERS_AT_ONCE) * self._size
        return array(self._code, read_at(self._fd, first, last))


class Spool:
    """Byte strings, appended to in order, read by number; other processes read by `fd` and
    positions. Lives in `$TMPDIR`."""

    def __init__(self) -> None:
        self.fd = _file_without_name(self)
        self._ends = Numbers("q")
        self._waiting = bytearray()
        self._written = 0

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, content: bytes) -> None:
        """Raises SpaceError where the disk is full."""
        self._waiting += content
        self._ends.append(self._written + len(self._waiting))
        if len(self._waiting) >= _BUFFERED:
            self._flush()

    @property
    def num_bytes(self) -> int:
        if self._ends:
            return self._ends[-1]
        return 0

    def __getitem__(self, number: int) -> bytes:
        self._flush()
        start, end = self.span(number, number + 1)
        return read_at(self.fd, start, end)

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """[first, last) byte in the file of the strings with numbers `start` to `stop`."""
        if start == stop:
            return 0, 0
        return (self._ends[start - 1] if start else 0), self._ends[stop - 1]

    def chunks(self, *, most: int, most_bytes: int) -> Iterator[tuple[int, int]]:
        """[start, stop) of consecutive strings, at most this many and this many bytes together, or
        one."""
        self._flush()
        start = 0
        for stop in range(1, len(self) + 1):
            first, last = self.span(start, min(stop + 1, len(self)))
            if stop == len(self) or stop - start == most or last - first > most_bytes:
                yield start, stop
                start = stop

    def _flush(self) -> None:
        _write(self.fd, memoryview(self._waiting))
        self._written += len(self._waiting)
        self._waiting = bytearray()


def _file_without_name(owner: object) -> int:
    """A file that is closed, and so removed, when its owner is gone."""
    fd, name = tempfile.mkstemp(prefix="hagane-")
    os.unlink(name)  # noqa: PTH108 - there is no Path of it
    weakref.finalize(owner, os.close, fd)
    return fd


def _write(fd: int, rest: memoryview) -> None:
    """Raises SpaceError where the disk is full."""
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except OSError as error:
            raise SpaceError(
                f"{tempfile.gettempdir()}: cannot be written: {error.strerror}; make room, or set "
                "TMPDIR to a larger disk"
            ) from None


def read_at(fd: int, start: int, end: int) -> bytes:
    """Bytes [start, end) of a file; one call reads at most 2 GiB on Linux, so there may be
    several."""
    parts: list[bytes] = []
    while start < end:
        part = os.pread(fd, end - start, start)
        if not part:
            raise EOFError(f"{end - start} bytes are missing at {start}")
        parts.append(part)
        start += len(part)
    return b"".join(parts)
