"""Processes that do not outlive those who started them."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
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

    A thread hears of the signals (signal.set_wakeup_fd): Python's own handlers run in the main thread alone, which does not notice a
    signal that comes just before it waits for the process's next line.
    """
    noted: set[signal.Signals] = set()
    num_sigint = 0

    def count(number: int, _: FrameType | None) -> None:
        nonlocal num_sigint
        num_sigint += number == signal.SIGINT
        if num_sigint > 1:
            raise KeyboardInterrupt

    def pass_on() -> None:
        while number := os.read(heard, 1):
            first = not noted
            noted.add(signal.Signals(number[0]))
            if first and process.poll() is None:
                send()

    heard, told = os.pipe()
    os.set_blocking(told, False)
    listener = threading.Thread(target=pass_on, daemon=True)
    listener.start()
    told_before = signal.set_wakeup_fd(told)
    before = {each: signal.signal(each, count) for each in signals}
    try:
        yield noted
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(told_before)
        os.close(told)
        listener.join()
        os.close(heard)
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
