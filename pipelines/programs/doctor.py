"""`hagane doctor`: the plan of a spec, then what a cluster and KFP have against running it, as one
table."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.shared.documents.findings import Finding, finding_of
from components.shared.errors import HaganeError, Preempted
from components.shared.events import event_of
from components.shared.job.images import read_images
from components.shared.processes import end_with_parent, stop_passed_on
from components.shared.spec.file import spec_yaml
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import job_file
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.connection import NO_SERVER, Asked, find_connection
from pipelines.programs.component_program import require_installed
from pipelines.programs.planning import plan_of

NUM_ROWS = 5_000
"""What the plan is made for, from the model's config alone: rows do not change what a pod asks for
but its disk, by little."""
KFP_ANSWER_S = 5.0
STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def diagnose(
    spec: RunSpec | None,
    progress: Console,
    *,
    namespace: str | None,
    launcher: str,
    seconds: int,
    kfp: Asked,
    gpu_nodes: str | None = None,
) -> Iterator[Finding]:
    """Every finding as it comes. `progress` shows what is waited for. `gpu_nodes`: check `one` or
    `all` of the run's nodes themselves."""
    with tempfile.TemporaryDirectory(prefix="hagane-doctor-") as name:
        folder = Path(name)
        arguments = ["--launcher", launcher, "--seconds", str(seconds)]
        arguments += ["--namespace", namespace] if namespace else []
        if spec is not None:
            file = folder / "spec.yaml"
            file.write_text(spec_yaml(spec))
            arguments += [
                "--spec",
                str(file),
                "--image",
                read_images().training(on_gpus=spec.hardware.names_gpu),
            ]
            try:
                if spec.backend == "local":
                    backend = "pytorchjob"
                else:
                    backend = spec.backend
                plan_of(
                    spec.model_copy(update={"backend": backend}),
                    Console(quiet=True),
                    keep=folder / "plan",
                    num_rows=NUM_ROWS,
                )
                arguments += ["--manifest", str(folder / "plan" / job_file(backend))]
                arguments += (
                    ["--plan", str(folder / "plan"), "--gpu-nodes", gpu_nodes] if gpu_nodes else []
                )
            except HaganeError as error:
                yield from (
                    Finding(check="plan", state="failed", found=problem)
                    for problem in error.problems
                )
        yield from _findings_of("components.launch_training.doctor", arguments, progress)
    yield kfp_finding(kfp)


def diagnose_here(spec: RunSpec, progress: Console) -> Iterator[Finding]:
    """What the check of GPUs finds on this machine, where the spec trains by processes.

    Raises:
        HaganeError: the plan was refused, or what trains is not installed here.
    """
    with tempfile.TemporaryDirectory(prefix="hagane-doctor-") as name:
        plan = Path(name) / "plan"
        plan_of(spec, Console(quiet=True), keep=plan, num_rows=NUM_ROWS)
        progress.print("checking this machine, at most two minutes", style="dim")
        yield from _findings_of(
            "components.train.gpu_check.__main__", ["--plan", str(plan), "--only-report"], progress
        )


def _findings_of(module: str, arguments: list[str], progress: Console) -> Iterator[Finding]:
    """What a component's program reports. Ctrl-C and SIGTERM are passed on to it, so that it
    deletes what it made."""
    require_installed(module)
    with tempfile.TemporaryFile("w+") as errors:
        program = subprocess.Popen(
            [sys.executable, "-m", module.removesuffix(".__main__"), *arguments],
            env={**os.environ, "HAGANE_LOG": "json"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            # one prctl call, and this process has no other threads
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
        assert program.stdout is not None

        def say_still() -> None:
            progress.print(
                "still deleting the pod that looked around; Ctrl-C again: give up", style="dim"
            )

        passed_on = stop_passed_on(
            program, program.terminate, signal.SIGTERM, signal.SIGINT, still=say_still
        )
        with program.stdout, passed_on as stopped_by:
            for event in map(event_of, program.stdout):
                if event is None:
                    continue
                if event["event"] == "check":
                    yield finding_of(event)
                elif event["event"] == "waiting":
                    progress.print(
                        f"waiting for pod of {event['job']}: {event['detail']}", style="dim"
                    )
                elif event["event"] == "failed":
                    raise HaganeError(*event["problems"])
            program.wait()
        if stopped_by:
            error = Preempted("doctor: stopped; its pod is deleted")
            error.exit_code = 128 + min(stopped_by)
            raise error
        if program.returncode:
            errors.seek(0)
            raise RuntimeError(
                f"{module} ended with exit code {program.returncode}:\n{errors.read()}"
            )


def kfp_finding(asked: Asked) -> Finding:
    """Whether Kubeflow Pipelines answers, and how it keeps apart users and pipelines (GetHealthz of
    its API v2beta1)."""
    try:
        connection = find_connection(asked)
        kfp = KfpClient(replace(connection, timeout_s=KFP_ANSWER_S))
        kfp.check_version()
        health = kfp.health
    except HaganeError as error:
        found, _, fix = error.problems[0].partition("; ")
        if found == NO_SERVER:
            return Finding(check="KFP", state="skipped", found="no server is named")
        return Finding(check="KFP", state="failed", found=found, fix=fix)
    if health.multi_user:
        users = "multi-user"
    else:
        users = "single-user"
    if health.pipeline_store:
        store = f", pipelines kept in {health.pipeline_store}"
    else:
        store = ""
    return Finding(check="KFP", state="ok", found=f"{connection.endpoint} answers, {users}{store}")


def findings_table(findings: Iterable[Finding]) -> Table:
    """One row each; what to do stands below what was found."""
    table = Table(
        "check", "state", "found, and how to fix it", box=None, pad_edge=False, header_style="bold"
    )
    table.columns[0].no_wrap = True
    for each in findings:
        cell = Text(each.found)
        if each.fix:
            cell.append(f"\nfix: {each.fix}", style="italic")
        table.add_row(Text(each.check), Text(each.state, style=STYLES[each.state]), cell)
    return table
