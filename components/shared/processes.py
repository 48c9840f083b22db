"""Processes that do not outlive those who started them."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

GIVEN_UP_AT = 3
"""The Ctrl-C that gives up. The first asks for an orderly end, the second shows what is still going
on."""
POSTPONED_S, LONGEST_POSTPONED_S = 0.001, 1.0
_CHANGES_OF_A_LOCK = frozenset(
    method.__code__
    for method in (
        threading.Condition.__enter__,
        threading.Condition.__exit__,
        threading.Semaphore.acquire,
        threading.Semaphore.release,
        threading.Semaphore.__exit__,
        logging.Handler.acquire,
        logging.Handler.release,
    )
)
"""Python functions that take or release a lock. An exception raised inside one can leave the lock
taken for ever, as no `with` block releases it yet, or any more. Locks that C code takes (`with
threading.Lock()`) are safe in Python 3.11."""


def end_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """The kernel sends this process SIGTERM, or `how`, when the process that started it is gone:
    nothing keeps running alone.

    prctl(2), PR_SET_PDEATHSIG = 1; Linux only, and nothing is done elsewhere.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, how)


def start_child(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """The command runs in a session of its own, where a Ctrl-C of the terminal does not reach it,
    and ends with this process. Its two outputs come as one stream of text.

    For a process of one thread: what runs between fork and exec is one prctl call.
    """
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509
    )


@contextmanager
def stop_passed_on(
    process: subprocess.Popen[str],
    send: Callable[[], object],
    *signals: signal.Signals,
    still: Callable[[], object] = lambda: None,
) -> Iterator[set[signal.Signals]]:
    """The first of these signals to this process inside the block calls `send`, which asks
    `process` to end; all are noted in the set.

    Later ones do not disturb that end: a second SIGINT calls `still`, which says what is still
    going on, a third leaves the block by KeyboardInterrupt. However it is left, the process is gone
    after it.

    A thread hears of the signals (signal.set_wakeup_fd): Python's own handlers run in the main
    thread alone, which does not notice a signal that comes just before it waits for the process's
    next line.
    """
    noted: set[signal.Signals] = set()
    num_sigint = 0

    def count(number: int, _: FrameType | None) -> None:
        nonlocal num_sigint
        num_sigint += number == signal.SIGINT
        if num_sigint == GIVEN_UP_AT:
            raise KeyboardInterrupt

    def pass_on() -> None:
        interrupts = 0
        while number := os.read(reader, 1):
            first = not noted
            noted.add(signal.Signals(number[0]))
            interrupts += number[0] == signal.SIGINT
            if first and process.poll() is None:
                send()
            elif number[0] == signal.SIGINT and interrupts < GIVEN_UP_AT:
                still()

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    listener = threading.Thread(target=pass_on, daemon=True)
    listener.start()
    fd_before = signal.set_wakeup_fd(writer)
    before = {each: signal.signal(each, count) for each in signals}
    try:
        yield noted
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(fd_before)
        os.close(writer)
        listener.join()
        os.close(reader)
        if process.poll() is None:
            if noted:
                process.kill()
            else:
                send()
            process.wait()


@contextmanager
def left_by_signal(*, ending: str, left: str) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C leaves the block as an exception does (SystemExit of code 143,
    KeyboardInterrupt), so that what is to be done at its end is done.

    Later ones do not disturb that. A second Ctrl-C prints `ending`, which says what is still going
    on. A third gives up: it prints `left`, which says what may be left and what removes it, and
    raises KeyboardInterrupt wherever the end has come to. After the block a process that was
    stopped hears no SIGTERM any more: all that it has yet to do is to say so.
    """
    num_signals = num_interrupts = 0
    leave = RaiseFromHandler()

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal num_signals, num_interrupts
        num_signals += 1
        num_interrupts += number == signal.SIGINT
        if num_signals == 1:
            if number == signal.SIGINT:
                leave(KeyboardInterrupt(), frame)
            else:
                leave(SystemExit(128 + number), frame)
        elif number == signal.SIGINT:
            gives_up = num_interrupts >= GIVEN_UP_AT
            print_at_once(left if gives_up else f"{ending}; Ctrl-C again: give up")
            if gives_up:
                leave(KeyboardInterrupt(), frame)

    before = {each: signal.signal(each, hear) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        # Not SIG_IGN, which programs started from here would inherit.
        signal.signal(signal.SIGTERM, _nothing if num_signals else before[signal.SIGTERM])
        leave.finish()


class RaiseFromHandler:
    """Raises an error from the handler of a signal, in the main thread, wherever that is: at once,
    but some milliseconds later, a second at most, where the thread takes or releases a lock.

    Such a lock would stay taken, and who needs it next would wait for ever: urllib3 keeps its
    connections in a queue.Queue, which has one. Uses SIGALRM meanwhile.
    """

    def __init__(self) -> None:
        self._postponed: BaseException | None = None
        self._until = 0.0
        self._alarm_before: Any = None

    def __call__(self, error: BaseException, frame: FrameType | None) -> None:
        """`frame` is the one that the handler got. Of several errors the last is raised."""
        if self._postponed is None:
            self._until = time.monotonic() + LONGEST_POSTPONED_S
            self._alarm_before = signal.signal(signal.SIGALRM, self._again)
        self._postponed = error
        self._again(signal.SIGALRM, frame)

    def finish(self) -> None:
        """Raises what is still postponed. For the end of the block in which the handlers are."""
        if self._postponed is None:
            return
        error, self._postponed = self._postponed, None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._alarm_before)
        raise error

    def _again(self, _: int, frame: FrameType | None) -> None:
        if _changes_a_lock(frame) and time.monotonic() < self._until:
            signal.setitimer(signal.ITIMER_REAL, POSTPONED_S)
        else:
            self.finish()


def _changes_a_lock(frame: FrameType | None) -> bool:
    """Whether the thread takes or releases a lock there. Handlers of this module, which another
    signal interrupted, are passed over."""
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame is not None and frame.f_code in _CHANGES_OF_A_LOCK


def print_at_once(line: str) -> None:
    """The line is on stderr: safe in a signal's handler, where Python's own streams may be busy."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """For a signal that is to change nothing."""
