import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

PARENT = """
import signal, subprocess, sys
from components.shared.processes import end_with_parent, stop_passed_on
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
up = child.stdout.readline()
with stop_passed_on(child, child.terminate, signal.SIGTERM, signal.SIGINT) as noted:
    print(child.pid, up, end="", flush=True)
    print(child.stdout.read(), end="", flush=True)
    child.wait()
print([each.name for each in noted], flush=True)
"""
SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
SAVER = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print("saved", flush=True), exit(0)))
print("up", flush=True)
time.sleep(60)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def begin(child: str) -> tuple["subprocess.Popen[str]", psutil.Process]:
    """A parent that waits for this child, which is up."""
    command = [sys.executable, "-c", PARENT, child]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd())
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


def test_a_second_ctrl_c_ends_a_child_that_does_not_listen() -> None:
    parent, child = begin(STUBBORN)
    parent.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        parent.wait(timeout=0.5)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=20)
    assert parent.returncode == -signal.SIGINT
    assert not child.is_running()
