"""The job of `hagane plan --probe-pod`, and what becomes of its pod's words."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.launch_training import step_probe
from components.launch_training.doctor.one_off_run import NotStarted
from components.launch_training.job.kinds import KINDS
from components.launch_training.job.worker_pod import worker_template
from components.launch_training.step_probe import check_one_pod, measured_in, probe_in_pod
from components.shared.documents.plan import Plan
from components.shared.documents.probe import MeasuredSteps
from components.shared.documents.probe_request import ProbeRequest, probe_request_of
from components.shared.errors import HaganeError, RunFailed, SpecError
from components.shared.spec.file import load_spec
from components.shared.step import step_log
from tests.support.example_jobs import job_text
from tests.support.example_plans import ROOT, plan_example
from tests.support.example_trainjob import example_trainjob
from tests.support.schemas import schema_problems

EXAMPLE = "swallow-70b-lora-8x80gb"
JOB = "spot-in-a-queue"
MEASURED = MeasuredSteps(
    device="NVIDIA H100",
    num_processes=8,
    rows="random",
    tokens_per_row=4096.0,
    grad_accum=2,
    step_seconds=(4.1, 4.0, 4.2),
    optimizer_seconds=0.3,
    peak_host_bytes=2**34,
    peak_gpu_bytes=2**36,
)


def request_of(plan: Plan, folder: Path) -> ProbeRequest:
    (folder / "plan.json").write_text(plan.model_dump_json())
    (folder / "deepspeed.json").write_text('{"bf16": {"enabled": true}}')
    (folder / "training_args.json").write_text('{"learning_rate": 0.1}')
    return probe_request_of(folder, label_smoothing=0.1)


def planned(example: str = EXAMPLE) -> Plan:
    return plan_example(load_spec(ROOT / "specs" / "plans" / f"{example}.yaml"))


def line_of(event: str, **fields: Any) -> str:
    return json.dumps({"event": event, "component": "train", **fields}, separators=(",", ":"))


class Pod:
    """In the place of the cluster: takes a job, and has what its pod printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
        self.jobs: list[dict[str, Any]] = []

        def logs_of(_: object, job: dict[str, Any], **__: object) -> dict[str, list[str]]:
            self.jobs.append(job)
            return {"master-0": list(lines)}

        class Here:
            def __init__(self, namespace: str | None, kind: object) -> None:
                self.namespace, self.kind = namespace, kind

        monkeypatch.setattr(step_probe, "Cluster", Here)
        monkeypatch.setattr(step_probe, "logs_of", logs_of)


@pytest.mark.parametrize("backend", KINDS)
def test_one_pod_of_the_runs_shape_makes_the_steps_of_the_plan(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = Pod(monkeypatch, "noise", line_of("probed", **MEASURED.model_dump(mode="json")))
    if backend == "pytorchjob":
        manifest = yaml.safe_load(job_text(JOB))
    else:
        manifest = example_trainjob(JOB)
    spec = load_spec(ROOT / "specs" / "plans" / f"{EXAMPLE}.yaml", [f"backend={backend}"])
    plan = planned()
    request = request_of(plan, tmp_path)
    with step_log("launch_training") as log:
        measured = probe_in_pod(
            spec, manifest, request, image="here/train-cuda", start_s=60, log=log
        )
    assert measured == MEASURED
    (job,) = pod.jobs
    assert KINDS[backend].num_pods(job) == 1
    assert schema_problems(job) == []
    (container,) = worker_template(job, KINDS[backend])["spec"]["containers"]
    assert container["command"] == ["python", "-m", "components.train.step_probe"]
    assert container["image"] == "here/train-cuda"
    assert "--only-report" in container["args"]
    sent = container["args"][container["args"].index("--request") + 1]
    assert len(sent) < 32_000  # one argument of a program takes 128 KiB at most
    read = ProbeRequest.model_validate_json(sent)
    assert read == request
    assert (read.plan.lora, read.plan.time, read.label_smoothing) == (plan.lora, plan.time, 0.1)
    assert read.plan.memory.host_bytes == plan.memory.host_bytes


def test_what_the_pod_refused_is_said_with_its_exit_code() -> None:
    problems = ["--probe: the plan needs 9.0 GiB of host memory, found 1.0 GiB available"]
    with pytest.raises(HaganeError) as error:
        measured_in(["noise", line_of("failed", exit_code=2, problems=problems)])
    assert (error.value.exit_code, list(error.value.problems)) == (2, problems)


def test_a_pod_that_ended_without_a_word_has_its_last_lines_in_the_message() -> None:
    with pytest.raises(RunFailed) as error:
        measured_in(["loading", "", "  Killed  "])
    assert "its last lines: loading; Killed" in error.value.problems[0]


def test_a_plan_of_several_nodes_is_refused_before_a_pod_is_made(tmp_path: Path) -> None:
    request = request_of(planned("llama-3-elyza-8b-full-2x8x80gb"), tmp_path)
    with pytest.raises(SpecError) as error:
        check_one_pod(request)
    assert "the plan is for 2 nodes, allowed 1, one pod" in error.value.problems[0]
    check_one_pod(request_of(planned(), tmp_path))


def test_a_pod_that_did_not_run_says_what_to_do() -> None:
    error = NotStarted("0 of 1 pods are there after 60 s: 0/3 nodes are available", "see nodes")
    assert error.problems == (
        "0 of 1 pods are there after 60 s: 0/3 nodes are available; see nodes",
    )
