"""How a training process can end -> its exit code, whether the job starts again, and what a person
reads: one table.

Kinds: `retry` restarts the job from its newest checkpoint; `final` would fail again and ends it;
`user` is for whoever wrote the spec or runs the cluster, and ends it too. A PyTorchJob (restart
policy ExitCode) and the runtime `hagane` of a TrainJob go by the code
alone: below 128 is final. From 129 to 192 a shell means a signal, so hagane's own code for a retry
that is no signal lies above.

docs/cluster.md shows the table.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from components.shared.errors import HaganeError, PeerLost, Preempted, RunFailed

Kind = Literal["retry", "final", "user"]
FIRST_RETRY_CODE = 128
LAST_SIGNAL_CODE = 192
GPU_FAULT_CODE = 200
OUT_OF_MEMORY = "OOMKilled"
"""Kubernetes' reason for a container that the kernel killed for its memory limit."""
ANY = ""
NO_RETRY_HELPS = r"no kernel image|invalid device ordinal|device-side assert"
"""In CUDA's own words (driver_types.h): the same program and wheel meet it again."""


@dataclass(frozen=True)
class Ending:
    """One way to end."""

    name: str
    kind: Kind
    code: int
    """Of the process; of its pod too, since components.train.node keeps it."""
    meaning: str
    """For a person: what it means, and how to fix it."""
    errors: tuple[tuple[str, str], ...] = ()
    """Name of an exception class, its subclasses included, and a regular expression that its
    message must contain."""
    log: str = ""
    """Regular expression in a pod's last lines, where its own `failed` line did not come; empty:
    lines say nothing of it."""
    reason: str = ""
    """Kubernetes' reason for the container's end."""


ENDINGS = (
    Ending(
        "SIGTERM: a drained node, a preempted pod",
        "retry",
        Preempted.exit_code,
        "a checkpoint was stored first, unless it does not fit in `checkpoints.grace_seconds`",
        errors=(("Preempted", ANY),),
    ),
    Ending(
        "NCCL timeout: its watchdog aborts the process (SIGABRT)",
        "retry",
        128 + 6,
        "its GPUs' network did not answer (NCCL); see the lines above, and NCCL_DEBUG=INFO",
        log=r"(NCCL|Watchdog).*(timeout|timed out)",
    ),
    Ending(
        "lost peer: another process of the job, or the way to it, is gone",
        "retry",
        PeerLost.exit_code,
        "another process did not answer in time (gloo)",
        errors=(
            ("PeerLost", ANY),
            ("DistError", ANY),
            ("RuntimeError", r"[Cc]onnection (closed|reset) by peer|Broken pipe"),
            ("RuntimeError", r"gloo.*(Timed out|Read error|Write error|Connect error)"),
        ),
        log=r"gloo.*Timed out|Timed out waiting",
    ),
    Ending(
        "a process that never came",
        "retry",
        PeerLost.exit_code,
        (
            "the processes did not find each other in time: a pod that never came, or a "
            "NetworkPolicy between them"
        ),
        log=r"seconds waiting for clients|client socket has timed out",  # torch 2.14, TCPStore
    ),
    Ending(
        "the master's name is not resolved",
        "retry",
        PeerLost.exit_code,
        "the master's name is not found: the cluster's DNS",
        log=r"Name or service not known|Temporary failure in name resolution|nslookup",
    ),
    Ending(
        "no kernel image, invalid device ordinal, device-side assert",
        "final",
        RunFailed.exit_code,
        "a GPU cannot run this program: torch has no kernels for its architecture, the pod has "
        "fewer GPUs than processes, or a token is outside the vocabulary; the message says which",
        errors=(("AcceleratorError", NO_RETRY_HELPS),),
        log=rf"CUDA error.*({NO_RETRY_HELPS})",
    ),
    Ending(
        "out of memory on a GPU",
        "final",
        RunFailed.exit_code,
        (
            "a GPU, or the page-locked memory of its host, is full: set training.micro_batch "
            "lower, or hardware.memory_margin higher"
        ),
        errors=(("OutOfMemoryError", ANY), ("AcceleratorError", r"out of memory")),
        log=r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory",
    ),
    Ending(
        "fault of a GPU: ECC error, XID, unspecified launch failure",
        "retry",
        GPU_FAULT_CODE,
        "a GPU failed; if it fails again on the same node, drain that node",
        errors=(("AcceleratorError", ANY),),
        log=r"CUDA error",
    ),
    Ending(
        "out of host memory: the kernel killed the container",
        "final",
        128 + 9,
        "raise hardware.memory_margin, or shorten data.row_tokens; the launcher ends the job",
        reason=OUT_OF_MEMORY,
    ),
    Ending(
        "out of host memory: an allocation was refused",
        "final",
        RunFailed.exit_code,
        "the host has too little memory: raise hardware.memory_margin, or shorten data.row_tokens",
        errors=(
            ("MemoryError", ANY),
            ("RuntimeError", r"DefaultCPUAllocator: can't allocate memory"),
        ),
        log=r"DefaultCPUAllocator: can't allocate memory|MemoryError",
    ),
    Ending(
        "disk full",
        "final",
        RunFailed.exit_code,
        "the pod's disk is full: set cluster.work_claim, or a larger emptyDir by cluster.pod_patch",
        errors=(("OSError", r"No space left on device"),),
        log=r"No space left on device",
    ),
    Ending(
        (
            "a loss that is not finite, a damaged checkpoint, a checkpoint that cannot be "
            "written, fewer GPUs than planned"
        ),
        "final",
        RunFailed.exit_code,
        "the line of the error says what is wrong and how to fix it",
        errors=(("RunFailed", ANY),),
    ),
    Ending(
        "a bad spec, dataset or model; the store denies it, or is away for longer than 10 minutes",
        "user",
        HaganeError.exit_code,
        "the line of the error says what is wrong and how to fix it; the same command then goes on",
        errors=(("HaganeError", ANY),),
    ),
)
"""Asked in order; the first that fits counts."""
KILLED = Ending("killed by another signal", "retry", 128, "128 + the signal's number")
LOST_NODE = Ending(
    "lost node, deleted or evicted pod",
    "retry",
    128,
    "none: the pod is gone; the job's controller makes it anew",
)
ANY_OTHER = Ending(
    "any other error", "final", 1, "a fault of hagane or of a library: see the traceback"
)


def ending_of(error: BaseException) -> Ending:
    """How a process ends by an exception that nobody caught."""
    classes = {each.__name__ for each in type(error).__mro__}
    message = str(error)
    for ending in ENDINGS:
        if any(name in classes and re.search(pattern, message) for name, pattern in ending.errors):
            return ending
    return ANY_OTHER


def ending_in(lines: Iterable[str], reason: str = "") -> Ending | None:
    """What a pod's last lines, or Kubernetes' reason for its end, say of it; None where they say
    nothing."""
    text = "\n".join(lines)
    for ending in ENDINGS:
        if reason and ending.reason == reason:
            return ending
        if ending.log and re.search(ending.log, text):
            return ending
    return None


def starts_again(exit_code: int) -> bool:
    """Whether the job's controller makes the pod anew after this exit code."""
    return exit_code >= FIRST_RETRY_CODE


def signal_of(exit_code: int) -> int | None:
    """The signal that a shell means by an exit code; None where it means none."""
    if 128 < exit_code <= LAST_SIGNAL_CODE:
        return exit_code - 128
    return None


def table() -> str:
    """All endings in Markdown, for docs/cluster.md."""
    rows = [
        "| what happened | exceptions | exit code | kind | what it means |",
        "|---|---|---|---|---|",
    ]
    for ending in (*ENDINGS, KILLED, LOST_NODE, ANY_OTHER):
        code = {KILLED: "128 + its number", LOST_NODE: "none"}.get(ending, str(ending.code))
        names = ", ".join(dict.fromkeys(f"`{name}`" for name, _ in ending.errors))
        if ending.reason:
            reason = f"Kubernetes: {ending.reason}"
        else:
            reason = ""
        rows.append(
            f"| {ending.name} | {names or reason} | {code} | {ending.kind} | {ending.meaning} |"
        )
    return "\n".join(rows)
