"""Processes that do not outlive those who started them."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def end_with_parent() -> None:
    """The kernel sends this process SIGTERM when the process that started it is gone, so that nothing keeps running alone.

    prctl(2), PR_SET_PDEATHSIG = 1; Linux only, and nothing is done elsewhere.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@contextmanager
def ended_with_this_block(process: subprocess.Popen[str], end: Callable[[], object]) -> Iterator[None]:
    """The process is gone after the block, however the block is left: by Ctrl-C, SIGTERM, an error, or its end.

    `end` asks it to go. After SIGTERM this process then ends too, with exit code 143.
    """
    with left_by_sigterm():
        try:
            yield
        finally:
            if process.poll() is None:
                end()
                process.wait()


@contextmanager
def left_by_sigterm() -> Iterator[None]:
    """SIGTERM leaves the block as an exception does, so that what is to be done at its end is done; exit code 143."""

    def leave(signal_number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + signal_number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
