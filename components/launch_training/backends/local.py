"""The `local` backend: training processes on this machine, started by torchrun, followed line by
line to their end."""

import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable

from components.shared.documents.plan import Plan
from components.shared.errors import PeerLost, Preempted, RunFailed
from components.shared.events import Event, event_of
from components.shared.job.training_job import patience_minutes, worker_environment
from components.shared.processes import start_child, stop_passed_on
from components.shared.spec.results import CheckpointSpec
from components.shared.step import Log

LAST_LINES = 200  # enough for torchrun's summary, 7 lines for each process that failed


def torchrun_command(run: str, plan: Plan) -> list[str]:
    """`components.train` in all processes of one machine. Its argument is positional: torchrun
    would take `--run` for its own."""
    return [
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={plan.steps.num_processes}",
        ),
        *("-m", "components.train", run),
    ]


def worker_settings(plan: Plan, spec: CheckpointSpec) -> dict[str, str]:
    """Variables for the training processes: threads as the plan has them, but no more than this
    machine has cores for."""
    here = max(1, len(os.sched_getaffinity(0)) // plan.steps.num_processes)
    return worker_environment(
        threads=min(here, plan.threads_per_process or here),
        grace_seconds=spec.grace_seconds,
        patience_minutes=patience_minutes(plan.checkpoints.bytes_each, spec.upload_mb_s),
        num_gpus=plan.steps.num_processes if plan.on_gpus else 0,
    )


def run_to_end(command: list[str], environment: dict[str, str], log: Log) -> None:
    """The job ran and succeeded; its events are passed on as this process's own.

    SIGTERM to this process is passed on to the job, whose end is then awaited.

    Raises:
        RunFailed: the job failed; says which process ended how, or what the process itself said.
        Preempted: it ended because SIGTERM came to this process or to one of the job's.
    """
    # Of its own session: torchrun must get SIGTERM once, from here; at the second it stops waiting
    # for its processes.
    process = start_child(command, environment)
    assert process.stdout is not None
    with stop_passed_on(process, process.terminate, signal.SIGTERM) as stopped:
        follow_to_end(process.stdout, process.wait, log, stopped=stopped)


def follow_to_end(
    lines: Iterable[str],
    exit_code_of: Callable[[], int],
    log: Log,
    *,
    stopped: Collection[signal.Signals] = frozenset(),
) -> None:
    """All lines of the job were passed on, and it succeeded. `exit_code_of` is asked after the
    last line, `stopped` then names the signals that were passed on to the job.

    Raises:
        RunFailed, Preempted: see `run_to_end`.
    """
    problems: list[str] = []
    last_lines: deque[str] = deque(maxlen=LAST_LINES)
    preempted = False
    for line in lines:
        event = event_of(line)
        if event is None:
            last_lines.append(line.rstrip())
            print(line, end="", flush=True)
        elif event.get("event") == "failed":
            preempted |= event["exit_code"] == Preempted.exit_code
            problems += [problem for problem in event["problems"] if problem not in problems]
        else:
            pass_on(event, log)
    exit_code = exit_code_of()
    if stopped or preempted:
        raise Preempted(*(problems or ["training: stopped by SIGTERM"]))
    if exit_code:
        raise RunFailed(*(problems or [_how_it_ended(exit_code, list(last_lines))]))


def pass_on(event: Event, log: Log) -> None:
    """The event is this process's own too."""
    name = str(event.pop("event"))
    event.pop("level", None)
    log.info(name, **event)


def _how_it_ended(exit_code: int, lines: list[str]) -> str:
    """torchrun's summary names every process that failed by `rank` and `exitcode`, a signal's
    number negative, the first seen last.

    Of a process killed and one that ended because it lost the other, torchrun may see either first:
    the cause is the former.
    """
    failures = re.findall(
        r"^ *rank +: (\d+) .*\n *exitcode +: (-?\d+)", "\n".join(lines), re.MULTILINE
    )
    if not failures:
        return (
            f"training: torchrun ended with exit code {exit_code}; its last line: "
            f"{lines[-1] if lines else 'none'}"
        )
    rank, code = next(
        (each for each in reversed(failures) if int(each[1]) != PeerLost.exit_code), failures[-1]
    )
    number = int(code)
    if number < 0:
        how = f"was killed by {signal.Signals(-number).name}"
    else:
        how = f"ended with exit code {number}"
    if number == -signal.SIGKILL:
        hint = "; a SIGKILL that nobody sent is the kernel's, for want of memory"
    else:
        hint = ""
    return f"training: process {rank} {how}{hint}"
