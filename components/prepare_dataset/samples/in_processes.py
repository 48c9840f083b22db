"""Stored conversations -> what a function makes of them, a chunk at a time, in their order, in one
process or in several.

Processes are begun anew (spawn), so that no thread of this one is lost in them; each takes about
half a second and 100 MB. Chunks are the same whatever the number of processes, and so is all that
comes of them.
"""

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, TypeVar

from components.prepare_dataset.packing.spool import read_at
from components.prepare_dataset.packing.stored import Conversations, unpacked
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.samples.tokens import Encoder
from components.shared.errors import RunFailed
from components.shared.processes import end_with_parent

Connection = Any
"""One end of a pipe to another process; its class differs between systems."""
Result = TypeVar("Result")
Work = Callable[[Encoder, Sequence[Conversation]], Result]

MOST_CONVERSATIONS = 500
MOST_BYTES = 1 << 20
"""Of a chunk: tokenizers needs about 100 bytes of memory for each byte of a batch."""

_BYTES_A_PROCESS = 32 << 20
_MOST_PROCESSES = 16
_AHEAD = 2
"""Chunks that a process is given beside the one it works on."""


def num_processes(num_bytes: int) -> int:
    """One for each core that this process may use, at most 16, and for each 32 MB of
    conversations."""
    return max(1, min(num_cores(), _MOST_PROCESSES, num_bytes // _BYTES_A_PROCESS))


def in_processes(
    work: Work[Result],
    encoder: Encoder,
    conversations: Conversations,
    *,
    processes: int | None = None,
) -> Iterator[tuple[int, int, Result]]:
    """(start, stop, result) of each chunk, which is conversations `start` to `stop`; `work` is a
    function of a module.

    Raises:
        RunFailed: a process was killed, as by the kernel when memory is short.
    """
    spool = conversations.spool
    chunks = list(spool.chunks(most=MOST_CONVERSATIONS, most_bytes=MOST_BYTES))
    if processes is None:
        processes = num_processes(spool.num_bytes)
    if processes == 1:
        for start, stop in chunks:
            yield (
                start,
                stop,
                work(encoder, list(unpacked(read_at(spool.fd, *spool.span(start, stop))))),
            )
        return
    with ExitStack() as stack:
        ends = [stack.enter_context(_worker(work, encoder, spool.fd)) for _ in range(processes)]
        given: deque[tuple[int, int, Connection]] = deque()
        for number, (start, stop) in enumerate(chunks):
            if len(given) == _AHEAD * processes:
                yield _taken(*given.popleft())
            end = ends[number % processes]
            _give(end, spool.span(start, stop))
            given.append((start, stop, end))
        while given:
            yield _taken(*given.popleft())


def _give(end: Connection, span: tuple[int, int]) -> None:
    try:
        end.send(span)
    except OSError:
        raise _killed() from None


def _taken(start: int, stop: int, end: Connection) -> tuple[int, int, Any]:
    try:
        result = end.recv()
    except (EOFError, OSError):
        raise _killed() from None
    if isinstance(result, Exception):
        raise result
    return start, stop, result


def _killed() -> RunFailed:
    return RunFailed(
        "a process that writes conversations as tokens was killed; is there enough memory? Fix: "
        "give the pod more"
    )


@contextmanager
def _worker(work: Work[Any], encoder: Encoder, fd: int) -> Iterator[Connection]:
    """The end at which a process takes spans and gives results; the process is gone behind the
    block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, encoder, _Shared(fd)), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(timeout=1)
        if process.is_alive():
            process.terminate()
            process.join()
        process.close()


class _Shared:
    """A file descriptor that a process to be begun gets too."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.fd),)


def _received(duplicate: Any) -> "_Shared":
    return _Shared(duplicate.detach())


def _serve(end: Connection, work: Work[Any], encoder: Encoder, spool: _Shared) -> None:
    """Until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act on
    end_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each process has one core
    while True:
        try:
            start, stop = end.recv()
        except (EOFError, OSError):
            return
        end.send(_result(work, encoder, read_at(spool.fd, start, stop)))


def _result(work: Work[Any], encoder: Encoder, content: bytes) -> Any:
    try:
        return work(encoder, list(unpacked(content)))
    except Exception as error:  # raised again in the parent
        error.add_note(traceback.format_exc())
        return error


def num_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use, no more than its pod's CPU limit lets it.

    cpu.max holds the limit and the period in microseconds, or `max` for no limit (Linux,
    Documentation/admin-guide/cgroup-v2.rst).
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    limit, _, period = (cpu_max.read_text() if cpu_max.is_file() else "max").partition(" ")
    if limit.strip() == "max":
        return cores
    return min(cores, max(1, int(limit) // int(period)))
