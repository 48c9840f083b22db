"""Two processes that wait for each other over gloo, the second always late."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys, time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch.distributed as dist

from components.train.agreement import Agreement
from components.train.checkpoints.resume import AfterResume, Resume

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2,
    timeout=timedelta(seconds=20),
)
agreement, resumed = Agreement(), folder / "resumed"
if rank == 1:
    time.sleep(0.5)
    (folder / "late").touch()
agreement.wait_for_all()
print((folder / "late").exists())

removal = AfterResume(Resume(resumed, False), lambda: None, agreement, zero_stage=3)
if rank == 1:
    time.sleep(0.5)
for _ in range(2):
    removal.on_step_end(None, None, None)
print(resumed.exists(), *agreement.anywhere(rank == 0, rank == 1))
"""


def printed_by_two(folder: Path) -> list[list[str]]:
    """Lines of each process."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder), str(rank)],
            env={**os.environ, "LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    return [output.splitlines() for output, _ in ended]


def test_nobody_goes_on_before_the_last_and_all_wait_equally_often_for_the_removal(
    tmp_path: Path,
) -> None:
    """A process that found the files gone already did not wait: the next exchange met no partner,
    and training hung until gloo gave up."""
    (tmp_path / "resumed").mkdir()
    assert printed_by_two(tmp_path) == [["True", "False True True"]] * 2
