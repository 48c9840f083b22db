"""Processes that do not outlive those who started them."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def end_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """The kernel sends this process SIGTERM, or `how`, when the process that started it is gone: nothing keeps running alone.

    prctl(2), PR_SET_PDEATHSIG = 1; Linux only, and nothing is done elsewhere.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, how)


@contextmanager
def stop_passed_on(process: subprocess.Popen[str], send: Callable[[], object], *signals: signal.Signals) -> Iterator[set[signal.Signals]]:
    """The first of these signals to this process inside the block calls `send`, which asks `process` to end; all are noted in the set.

    A second SIGINT leaves the block by KeyboardInterrupt. However it is left, the process is gone after it.
    """
    noted: set[signal.Signals] = set()

    def pass_on(number: int, _: FrameType | None) -> None:
        if signal.SIGINT in noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        first = not noted
        noted.add(signal.Signals(number))
        if first and process.poll() is None:
            send()

    before = {each: signal.signal(each, pass_on) for each in signals}
    try:
        yield noted
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if process.poll() is None:
            if noted:
                process.kill()
            else:
                send()
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
