import os
import signal
import subprocess
import sys
import time

PROGRAM = r"""
import sys
from laptop.demo import run_to_end
child = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGINT, lambda *_: (time.sleep(1), print('stored'), sys.exit(130)))\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)"
)
sys.exit(run_to_end([sys.executable, "-c", child]))
"""


def test_a_ctrl_c_waits_for_the_checkpoint_of_the_run() -> None:
    """The terminal sends it to both; the run's own end is awaited, and its exit code is passed
    on."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (output, errors, process.returncode) == ("stored\n", "", 130)
