"""`python -m components.train.gpu_check`: can this node, or the nodes of this job, train as a plan
says?

With HAGANE_LOG=json each finding is an event `check`, else they are one table. Ends with 2 when a
check failed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from components.shared.documents.findings import Finding
from components.shared.documents.gpu_check import CPU_S, GPU_S, CheckRequest, on_cpus, request_of
from components.shared.errors import SpecError
from components.shared.job.threads import SPINS
from components.shared.step import step_log
from components.train.gpu_check.device_checks import device_findings, usable_gpus
from components.train.gpu_check.exchange import exchange_findings
from components.train.gpu_check.facts import NodeFacts
from components.train.gpu_check.groups import Ran, run_on_all_nodes, run_on_node, run_program
from components.train.gpu_check.plain_request import plain_request
from components.train.gpu_check.small_run import make_small_run, plan_resume
from components.train.gpu_check.table import table
from components.train.gpu_check.training_checks import first_start_findings, resume_finding

MOST_CPU_PROCESSES = 2
"""Where a plan for GPUs is checked on a machine without: its CPU parts need no more to be shown."""
FEWEST_SECONDS = 5.0


class Check:
    """The checks in their order. `seconds`: longest time for all; None: GPU_S on GPUs, CPU_S on
    CPUs."""

    def __init__(self, request: CheckRequest, *, seconds: float | None) -> None:
        self.request = request
        self._begun = time.monotonic()
        self._seconds = seconds
        self._on_gpus = request.plan.on_gpus

    def findings(self) -> Iterator[Finding]:
        facts = self._facts()
        if isinstance(facts, Finding):
            yield facts
            return
        yield from device_findings(self.request, facts)
        on_gpus = self._on_gpus = usable_gpus(self.request, facts)
        if self.request.plan.on_gpus and not on_gpus:
            found = "what follows was done on CPUs, by at most 2 processes"
            yield Finding(check="GPU parts", state="skipped", found=found)
        yield from self._exchange(on_gpus=on_gpus)
        yield from self._small_training(on_gpus=on_gpus)

    def _facts(self) -> NodeFacts | Finding:
        ran = self._printed(
            run_program(
                "components.train.gpu_check.facts",
                self.request.plan.precision,
                seconds=self._left(),
            )
        )
        for event in ran.all_of("node_facts"):
            return NodeFacts.model_validate_json(
                json.dumps({name: event[name] for name in NodeFacts.model_fields})
            )
        return Finding(
            check="node", state="failed", found=ran.problem or "it said nothing", fix=ran.fix
        )

    def _exchange(self, *, on_gpus: bool) -> Iterator[Finding]:
        processes, nodes = self._processes(on_gpus=on_gpus), self.request.num_nodes
        ran = Ran(exit_code=0, seconds=0)
        if processes * nodes > 1:
            program = "components.train.gpu_check.exchange"
            ran = self._printed(
                run_on_all_nodes(
                    program,
                    processes=processes,
                    seconds=self._left(),
                    environment=self._environment(on_gpus=on_gpus),
                )
            )
        yield from exchange_findings(self.request, ran, on_gpus=on_gpus)

    def _small_training(self, *, on_gpus: bool) -> Iterator[Finding]:
        if on_gpus:
            request = self.request
        else:
            request = on_cpus(self.request)
        with tempfile.TemporaryDirectory(prefix="gpu-check-", dir=_work_folder()) as folder:
            run = make_small_run(request, Path(folder), processes=self._processes(on_gpus=on_gpus))
            environment = self._environment(on_gpus=on_gpus) | {"HAGANE_WORK": f"{folder}/work"}

            def start(processes: int) -> Ran:
                train = ("components.train", run.uri)
                return self._printed(
                    run_on_node(
                        *train, processes=processes, seconds=self._left(), environment=environment
                    )
                )

            first = start(run.processes)
            yield from first_start_findings(run, request.plan, first, run.history())
            second = None
            if first.problem is None:
                plan_resume(run, request)
                second = start(run.fewer)
            yield resume_finding(run, first, second)

    def _processes(self, *, on_gpus: bool) -> int:
        asked = self.request.processes_per_node
        if on_gpus or not self.request.plan.on_gpus:
            return asked
        return min(asked, MOST_CPU_PROCESSES)

    def _environment(self, *, on_gpus: bool) -> dict[str, str | None]:
        """Of the groups: a share of the cores each, and no GPU where they are not to be used."""
        threads = max(1, len(os.sched_getaffinity(0)) // self._processes(on_gpus=on_gpus))
        shared: dict[str, str | None] = {
            "OMP_NUM_THREADS": str(threads),
            "GOMP_SPINCOUNT": SPINS,
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if on_gpus:
            return shared
        return {**shared, "CUDA_VISIBLE_DEVICES": "", "HAGANE_GPUS": None}

    def _left(self) -> float:
        longest = self._seconds or (GPU_S if self._on_gpus else CPU_S)
        return max(FEWEST_SECONDS, self._begun + longest - time.monotonic())

    def _printed(self, ran: Ran) -> Ran:
        """Of a program that failed, what it printed is printed here too."""
        if ran.problem is not None:
            print(*ran.lines[-40:], sep="\n", file=sys.stderr, flush=True)
        return ran


def _work_folder() -> str | None:
    """Where the run would write: None is the system's own folder for temporary files."""
    folder = os.environ.get("HAGANE_WORK")
    if folder is not None and Path(folder).is_dir():
        return folder
    return None


def _request(arguments: argparse.Namespace) -> CheckRequest:
    if arguments.request is not None:
        return CheckRequest.model_validate_json(arguments.request)
    if arguments.plan is not None:
        try:
            return request_of(arguments.plan)
        except OSError as error:
            raise SpecError(
                f"--plan: {error.filename}: {error.strerror}. Fix: name the folder plan/ of a run"
            ) from None
    return plain_request(
        processes=arguments.processes,
        stage=arguments.stage,
        offload=arguments.offload,
        method=arguments.method,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.train.gpu_check", description=__doc__
    )
    parser.add_argument(
        "--plan",
        metavar="FOLDER",
        type=Path,
        help="plan/ of a run, as `hagane plan SPEC --out FOLDER` writes it",
    )
    parser.add_argument(
        "--request",
        metavar="JSON",
        help="the same in one argument, as `hagane doctor --gpu` gives it to pods",
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="without a plan: training processes on this node"
    )
    parser.add_argument(
        "--stage", type=int, choices=range(4), default=1, help="without a plan: ZeRO stage"
    )
    parser.add_argument(
        "--offload",
        choices=("none", "optimizer", "all"),
        default="none",
        help="without a plan: what is in host memory",
    )
    parser.add_argument(
        "--method", choices=("lora", "full"), default="full", help="without a plan: what is trained"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"longest time for all checks; {GPU_S} on GPUs, {CPU_S} on CPUs",
    )
    parser.add_argument(
        "--only-report", action="store_true", help="end with 0 whatever the checks find"
    )
    arguments = parser.parse_args()
    as_events = os.environ.get("HAGANE_LOG") == "json"
    with step_log("train") as log:
        findings: list[Finding] = []
        for finding in Check(_request(arguments), seconds=arguments.seconds).findings():
            findings.append(finding)
            if as_events:
                log.info("check", node=os.environ.get("PET_NODE_RANK", "0"), **finding.model_dump())
    if not as_events:
        print(table(findings))
    failed = [finding for finding in findings if finding.state == "failed"]
    if failed and not as_events:
        print(*(f"error: {finding.line}" for finding in failed), sep="\n", file=sys.stderr)
    sys.exit(2 if failed and not arguments.only_report else 0)


if __name__ == "__main__":
    main()
