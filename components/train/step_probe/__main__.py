"""`python -m components.train.step_probe`: time three optimizer steps of a plan on this machine.

What was measured is in a file, or the last event, `probed`, with the fields of `MeasuredSteps`.
Nothing is stored. Ends with 2 where this machine cannot make the steps, before the model is loaded,
and with 1 where they failed.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from components.shared.documents.plan import Plan
from components.shared.documents.probe import MeasuredSteps
from components.shared.documents.probe_request import ProbeRequest, probe_request_of
from components.shared.errors import RunFailed, SpecError
from components.shared.events import error_of
from components.shared.job.training_job import worker_environment
from components.shared.machine import machine_flags
from components.shared.processes import end_with_parent
from components.shared.step import step_log
from components.train.gpu_check.groups import Ran, run_on_node
from components.train.step_probe.available_memory import available_memory
from components.train.step_probe.failure import failure
from components.train.step_probe.probe_files import write_probe_files
from components.train.step_probe.probe_size import machine_problems, probe_grad_accum

STOP_S, PATIENCE_MIN = 10, 10
"""How long torchrun waits for its processes to stop, and a process for the others."""
LONGEST_S = 1800
"""For loading the model, which may come from the hub, and four steps."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.train.step_probe", description=__doc__
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--plan",
        metavar="FOLDER",
        type=Path,
        help="plan/ of a run, as `hagane plan SPEC --out FOLDER` writes it",
    )
    asked.add_argument(
        "--request",
        metavar="JSON",
        help="the same in one argument, as `hagane plan --probe-pod` gives it to a pod",
    )
    parser.add_argument(
        "--label-smoothing",
        metavar="SHARE",
        type=float,
        default=0.0,
        help="with --plan: training.label_smoothing of the spec, which a plan does not hold",
    )
    parser.add_argument(
        "--rows",
        metavar="FILE",
        type=Path,
        help="train.parquet of the dataset; without it, rows of random token ids",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="where what was measured is written, as JSON"
    )
    parser.add_argument(
        "--seconds", type=float, default=LONGEST_S, help=f"longest time for all ({LONGEST_S})"
    )
    parser.add_argument(
        "--only-report", action="store_true", help="end with 0 where the steps could not be made"
    )
    arguments = parser.parse_args()
    end_with_parent()
    try:
        _report(arguments)
    except SystemExit:
        if not arguments.only_report:
            raise


def _report(arguments: argparse.Namespace) -> None:
    """Raises SystemExit where the steps could not be made; the event `failed` says why."""
    with step_log("train") as log:
        request = _request(arguments)
        plan = request.plan
        check_machine(plan)
        log.info(
            "probing",
            steps="1 to warm up, 3 timed",
            micro_steps=f"{probe_grad_accum(plan)} of {plan.steps.grad_accum}",
            processes=plan.steps.num_processes,
        )
        measured = probe(request, rows=arguments.rows, seconds=arguments.seconds)
        if arguments.out is None:
            log.info("probed", **measured.model_dump(mode="json"))
        else:
            arguments.out.write_text(measured.model_dump_json() + "\n")


def _request(arguments: argparse.Namespace) -> ProbeRequest:
    if arguments.request is not None:
        return ProbeRequest.model_validate_json(arguments.request)
    return probe_request_of(arguments.plan, label_smoothing=arguments.label_smoothing)


def check_machine(plan: Plan) -> None:
    """Raises SpecError with all that keeps this machine from making the steps."""
    problems = tuple(
        machine_problems(
            plan,
            has_gpu="cuda" in machine_flags(),
            available_bytes=available_memory(),
        )
    )
    if problems:
        raise SpecError(*problems)


def probe(request: ProbeRequest, *, rows: Path | None, seconds: float) -> MeasuredSteps:
    """What the processes of the plan measured.

    Raises:
        HaganeError: what a process refused, with its exit code.
        RunFailed: they did not come to an end.
    """
    with tempfile.TemporaryDirectory(prefix="step-probe-") as name:
        folder = Path(name)
        plan = request.plan
        write_probe_files(request, folder, rows=rows)
        ran = run_on_node(
            "components.train.step_probe.worker",
            name,
            f"--label-smoothing={request.label_smoothing}",
            processes=plan.steps.num_processes,
            seconds=seconds,
            environment=_environment(plan, folder),
        )
    probed = ran.all_of("probed")
    if ran.problem is not None or not probed:
        _raise(ran)
    return MeasuredSteps.of(probed[-1])


def _environment(plan: Plan, folder: Path) -> dict[str, str | None]:
    """As a run on this machine has it."""
    here = max(1, len(os.sched_getaffinity(0)) // plan.steps.num_processes)
    own = worker_environment(
        threads=min(here, plan.threads_per_process or here),
        grace_seconds=STOP_S,
        patience_minutes=PATIENCE_MIN,
        num_gpus=plan.steps.num_processes if plan.on_gpus else 0,
    )
    return {**own, "HAGANE_WORK": str(folder / "work")}


def _raise(ran: Ran) -> None:
    """Raises what the processes said, or how they ended."""
    failed = ran.all_of("failed")
    if failed:
        raise error_of(failed[0])
    print(*ran.lines[-40:], sep="\n", file=sys.stderr, flush=True)
    raise RunFailed(failure(ran))


if __name__ == "__main__":
    main()
