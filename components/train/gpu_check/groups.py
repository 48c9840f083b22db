"""Groups of processes by torchrun: started, waited for, and ended with all they started when their
time is up."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from components.shared.events import Event, event_of, events_in
from components.shared.processes import end_with_parent

OF_A_JOB = r"PET_|TORCHELASTIC_|MASTER_(ADDR|PORT)$|(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)$"
"""Variables by which torchrun in a pod joins the pods of its job; a group within one pod has
none."""
LAST_WORDS = r"^(?:\[rank\d+\]: )?(\w[\w.]*(?:Error|Exception|Interrupt)\b.*)"
"""Last line of a traceback, which torchrun may have marked with its process."""
EXPLAINED = {
    "no kernel image": "this GPU is none that the wheel has kernels for: see kernels in the wheel",
    "out of memory": "another program uses the GPU, or the pod's limit is too low: see GPU memory",
    "Failed to find C compiler": "set TORCH_DISABLE_NATIVE_JIT=1, as the image train-cuda does",
    "unhandled (system|cuda) error|nccl(System|Unhandled)": (
        "read NCCL's own warning above; /dev/shm and network policies are the usual causes"
    ),
    "Connection (refused|reset|closed)|[Tt]imed out": (
        "let pods of the namespace reach each other: see k8s/base/network.yaml and the cluster's "
        "policies"
    ),
    "No space left": "free some, or set HAGANE_WORK to another disk",
    "Cannot allocate memory|SIGKILL|exitcode: -9": (
        "raise the memory limit: the kernel ended a process for want of memory"
    ),
}
"""Pattern of what a failed program said -> how to fix it."""


@dataclass(frozen=True)
class Ran:
    """How a program or a group ended."""

    exit_code: int | None
    """None: its time was up."""
    seconds: float
    events: list[Event] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """What it printed beside events."""

    @property
    def problem(self) -> str | None:
        """Why it failed, in one line; None where it did not."""
        if self.exit_code == 0:
            return None
        said = [
            problem
            for event in self.events
            if event["event"] == "failed"
            for problem in event["problems"]
        ]
        if said:
            return said[0]
        last = next(
            (
                found[1]
                for line in reversed(self.lines)
                if (found := re.match(LAST_WORDS, line)) and "ChildFailed" not in line
            ),
            None,
        )
        if self.exit_code is None:
            how = f"no end within {self.seconds:.0f} s"
        else:
            how = f"exit code {self.exit_code}"
        if last is None:
            last = next(
                (line.strip() for line in reversed(self.lines) if line.strip()),
                "it printed nothing",
            )
        return f"{how}: {last[:300]}"

    @property
    def text(self) -> str:
        """The problem, and all that was printed."""
        return "\n".join((self.problem or "", *self.lines))

    @property
    def fix(self) -> str:
        """What to do about the problem of a check of nodes, by what was printed."""
        for pattern, fix in EXPLAINED.items():
            if re.search(pattern, self.text):
                return fix
        if self.exit_code is None:
            return (
                "on a slow or busy machine give it more time by --seconds; else a process waits "
                "for a peer that is gone"
            )
        return "read the lines above the table; the first error among them is the cause"

    def all_of(self, name: str) -> list[Event]:
        return [event for event in self.events if event["event"] == name]


def run_program(
    *arguments: str, seconds: float, environment: Mapping[str, str | None] | None = None
) -> Ran:
    """`python -m …`, with its events as JSON. Nothing of it runs any more when this returns.

    `environment`: variables beside this program's own; None removes one.
    """
    begun = time.monotonic()
    env = {**os.environ, "HAGANE_LOG": "json", **(environment or {})}
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        program = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env={name: value for name, value in env.items() if value is not None},
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # one prctl call, and this process has no other threads
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
        try:
            exit_code = program.wait(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            exit_code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
        printed.seek(0)
        text = printed.read().splitlines()
    events = list(events_in(text))
    lines = [line for line in text if event_of(line) is None]
    return Ran(exit_code=exit_code, seconds=time.monotonic() - begun, events=events, lines=lines)


def run_on_node(
    *arguments: str,
    processes: int,
    seconds: float,
    environment: Mapping[str, str | None] | None = None,
) -> Ran:
    """A group of this node alone, whatever job its pod belongs to."""
    removed = dict.fromkeys(name for name in os.environ if re.match(OF_A_JOB, name))
    torchrun = ("torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m")
    return run_program(
        *torchrun, *arguments, seconds=seconds, environment={**removed, **(environment or {})}
    )


def run_on_all_nodes(
    *arguments: str,
    processes: int,
    seconds: float,
    environment: Mapping[str, str | None] | None = None,
) -> Ran:
    """A group of all nodes of the job, which torchrun reads from PET_ variables; of this node where
    there are none."""
    if "PET_MASTER_ADDR" not in os.environ and "PET_RDZV_ENDPOINT" not in os.environ:
        return run_on_node(
            *arguments, processes=processes, seconds=seconds, environment=environment
        )
    torchrun = ("torch.distributed.run", f"--nproc-per-node={processes}", "-m")
    return run_program(*torchrun, *arguments, seconds=seconds, environment=environment)
