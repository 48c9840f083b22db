import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from components.shared.processes import RaiseFromHandler, left_by_signal

PARENT = """
import signal, subprocess, sys
from components.shared.processes import end_with_parent, stop_passed_on
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
up = child.stdout.readline()
still = lambda: print("still stopping", flush=True)
with stop_passed_on(child, child.terminate, signal.SIGTERM, signal.SIGINT, still=still) as noted:
    print(child.pid, up, end="", flush=True)
    print(child.stdout.read(), end="", flush=True)
    child.wait()
print([each.name for each in noted], flush=True)
"""  # noqa: E501
SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
SAVER = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print("saved", flush=True), exit(0)))
print("up", flush=True)
time.sleep(60)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    "time.sleep(60)"
)


def begin(child: str) -> tuple["subprocess.Popen[str]", psutil.Process]:
    """A parent that waits for this child, which is up."""
    command = [sys.executable, "-c", PARENT, child]
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert parent.stdout is not None
    return parent, psutil.Process(int(parent.stdout.readline().split()[0]))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_child_is_gone_however_its_parent_ends(sent: signal.Signals) -> None:
    parent, child = begin(SLEEPER)
    parent.send_signal(sent)
    parent.communicate(timeout=20)
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert (gone, alive) == ([child], [])


def test_what_a_child_says_while_it_ends_is_still_read_and_the_signal_reaches_it_once() -> None:
    parent, _ = begin(SAVER)
    parent.send_signal(signal.SIGTERM)
    parent.send_signal(signal.SIGTERM)
    output, _ = parent.communicate(timeout=20)
    assert output == "saved\n['SIGTERM']\n"
    assert parent.returncode == 0


def test_a_second_ctrl_c_disturbs_nothing_and_a_third_ends_a_child_that_does_not_listen() -> None:
    parent, child = begin(STUBBORN)
    for _ in range(2):
        parent.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            parent.wait(timeout=0.5)
    parent.send_signal(signal.SIGINT)
    output, _ = parent.communicate(timeout=20)
    assert output == "still stopping\n"
    assert parent.returncode == -signal.SIGINT
    assert not child.is_running()


LEFT = """
import time
from components.shared.processes import left_by_signal
with left_by_signal(ending="job j is being deleted", left="job j may be left"):
    try:
        print("up", flush=True)
        time.sleep(60)
    except BaseException as error:
        print(type(error).__name__, flush=True)
        try:
            time.sleep(1.5)
            print("deleted", flush=True)
        except KeyboardInterrupt:
            print("given up", flush=True)
        raise SystemExit(7)
"""


def leave(*signals: signal.Signals, pause_s: float = 0.3) -> tuple[int, list[str], str]:
    """How a process ended that got these signals, and what it printed on each stream."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEFT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    for each in signals:
        process.send_signal(each)
        time.sleep(pause_s)
    output, errors = process.communicate(timeout=20)
    return process.returncode, output.splitlines(), errors


@pytest.mark.parametrize("pause_s", [0, 0.001, 0.003, 0.01, 0.05])
def test_only_the_first_sigterm_is_heard_whenever_the_others_come(pause_s: float) -> None:
    terms = [signal.SIGTERM] * 5
    assert leave(*terms, pause_s=pause_s) == (7, ["SystemExit", "deleted"], "")


BUSY = """
import os, queue, signal, sys, threading
from components.shared.processes import end_with_parent, left_by_signal


def busy_child() -> None:
    end_with_parent(signal.SIGKILL)
    connections = queue.LifoQueue()
    connections.put("connection")
    try:
        with left_by_signal(ending="", left=""):
            os.write(1, b"up")
            while True:
                connections.put(connections.get(block=False))
    except SystemExit:
        os._exit(0 if connections.mutex.acquire(timeout=1) else 7)


for number in range(int(sys.argv[1])):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        busy_child()
    os.close(write)
    os.read(read, 2)
    os.close(read)
    threading.Event().wait(0.0001 * (number % 10))
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Children that take and release the lock of a queue without pause, as urllib3's pool of
connections does for each request."""


def test_a_signal_leaves_no_lock_taken() -> None:
    """Of 60, a quarter would, if the handler raised wherever it is called."""
    done = subprocess.run(
        [sys.executable, "-c", BUSY, "60"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["0"] * 60


def taking_a_lock() -> Any:
    """Stands for the frame of a thread that takes a lock."""
    return SimpleNamespace(f_code=threading.Condition.__enter__.__code__, f_back=None)


def test_of_two_signals_in_a_lock_the_last_is_raised_and_no_handler_is_left() -> None:
    before, leave = signal.getsignal(signal.SIGALRM), RaiseFromHandler()
    leave(SystemExit(143), taking_a_lock())
    leave(KeyboardInterrupt(), taking_a_lock())
    with pytest.raises(KeyboardInterrupt):
        leave.finish()
    leave.finish()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_thread_that_waits_for_a_lock_is_left_after_a_second() -> None:
    held = threading.Condition(threading.Lock())
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with held:
            taken.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    begun = time.monotonic()
    with pytest.raises(SystemExit), left_by_signal(ending="", left=""), held:
        pass
    assert 0.5 < time.monotonic() - begun < 15
    done.set()
    holder.join()


def test_a_second_ctrl_c_says_what_goes_on_and_a_third_gives_up() -> None:
    going_on = "job j is being deleted; Ctrl-C again: give up\n"
    assert leave(signal.SIGINT, signal.SIGINT) == (7, ["KeyboardInterrupt", "deleted"], going_on)
    three = [signal.SIGINT] * 3
    assert leave(*three) == (7, ["KeyboardInterrupt", "given up"], f"{going_on}job j may be left\n")
    assert leave(signal.SIGTERM, signal.SIGINT) == (7, ["SystemExit", "deleted"], going_on)


def test_a_block_that_no_signal_left_leaves_the_handlers_as_they_were() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with left_by_signal(ending="", left=""):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
