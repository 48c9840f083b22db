import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

PARENT = """
import subprocess, sys
from components.shared.processes import end_with_parent, ended_with_this_block
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], text=True, preexec_fn=end_with_parent)
print(child.pid, flush=True)
with ended_with_this_block(child, child.terminate):
    child.wait()
"""


@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_child_is_gone_however_its_parent_ends(sent: signal.Signals, exit_code: int) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(sent)
    parent.communicate(timeout=20)
    assert parent.returncode == exit_code
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert (gone, alive) == ([child], [])
