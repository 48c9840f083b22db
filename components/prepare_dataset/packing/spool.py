"""Byte strings of any number, kept in a file instead of memory: 8 bytes of memory each.

The file has no name, so that nothing is left of it however this process ends. It is read by
position and not mapped into memory: what was read does not count as this process's memory.
"""

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterator

from components.shared.errors import SpaceError

_BUFFERED = 1 << 20


class Spool:
    """Appended to in order, read by number; other processes read by `fd` and positions. Lives in
    `$TMPDIR`."""

    def __init__(self) -> None:
        self.fd, name = tempfile.mkstemp(prefix="hagane-")
        os.unlink(name)  # noqa: PTH108 - there is no Path of it
        weakref.finalize(self, os.close, self.fd)
        self._ends = array("q")
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
        waiting = memoryview(self._waiting)
        while waiting:
            try:
                done = os.write(self.fd, waiting)
            except OSError as error:
                where = tempfile.gettempdir()
                raise SpaceError(
                    f"{where}: cannot be written: {error.strerror}; make room, or set TMPDIR to a "
                    "larger disk"
                ) from None
            self._written += done
            waiting = waiting[done:]
        waiting.release()
        self._waiting = bytearray()


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
