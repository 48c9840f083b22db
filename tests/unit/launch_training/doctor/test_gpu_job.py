"""The job of `hagane doctor --gpu`, and what becomes of its pods' words."""

import json
from typing import Any

import pytest
import yaml

from components.launch_training.doctor import gpu_run
from components.launch_training.doctor.gpu_job import gpu_check_job, of_all_nodes, said_by
from components.launch_training.doctor.gpu_run import probe_gpus
from components.launch_training.doctor.one_off_run import NotStarted, StillPending
from components.launch_training.job.kinds import KINDS
from components.launch_training.job.worker_pod import worker_template
from components.shared.documents.findings import Finding
from components.shared.documents.gpu_check import CheckRequest, for_one_node
from components.shared.spec.file import load_spec
from components.shared.step import step_log
from tests.support.example_jobs import job_text
from tests.support.example_plans import ROOT, plan_example
from tests.support.example_trainjob import example_trainjob
from tests.support.schemas import schema_problems

BACKENDS = ("pytorchjob", "trainjob")
OK = Finding(check="driver", state="ok", found="580.65")
BAD = Finding(check="driver", state="failed", found="550.54")


def manifest_of(backend: str, name: str) -> dict[str, Any]:
    return yaml.safe_load(job_text(name)) if backend == "pytorchjob" else example_trainjob(name)


def request_for(example: str) -> CheckRequest:
    plan = plan_example(load_spec(ROOT / "specs" / "plans" / f"{example}.yaml"))
    return CheckRequest(
        plan=plan.model_copy(update={"reasons": {}}), deepspeed={}, training_args={}
    )


def made(
    backend: str, request: CheckRequest, name: str = "full-two-nodes-of-8x80gb"
) -> dict[str, Any]:
    job = gpu_check_job(
        manifest_of(backend, name),
        KINDS[backend],
        "look",
        image="here/train-cuda",
        request=request,
        longest_s=480,
    )
    return json.loads(json.dumps(job))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_job_has_the_nodes_gpus_and_image_of_the_run_and_checks_in_each_pod(
    backend: str,
) -> None:
    request, kind = request_for("llama-3-elyza-8b-full-2x8x80gb"), KINDS[backend]
    job = made(backend, request)
    assert kind.num_pods(job) == 2
    (container,) = worker_template(job, kind)["spec"]["containers"]
    planned = worker_template(manifest_of(backend, "full-two-nodes-of-8x80gb"), kind)["spec"][
        "containers"
    ][0]
    assert container["resources"] == planned["resources"]
    assert container["image"] == "here/train-cuda"
    assert container["command"] == ["python", "-m", "components.train.gpu_check"]
    sent = container["args"][container["args"].index("--request") + 1]
    assert CheckRequest.model_validate_json(sent) == request
    assert "--only-report" in container["args"]
    assert schema_problems(job) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_node_is_one_pod_with_all_gpus_of_a_node(backend: str) -> None:
    request = for_one_node(request_for("llama-3-elyza-8b-full-2x8x80gb"))
    assert (request.num_nodes, request.processes_per_node) == (1, 8)
    job = made(backend, request)
    assert KINDS[backend].num_pods(job) == 1
    assert schema_problems(job) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_queues_is_checked_in_its_queue(backend: str) -> None:
    job = made(backend, request_for("swallow-70b-lora-8x80gb"), "spot-in-a-queue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "spot"
    assert KINDS[backend].is_suspended(job)
    assert "hagane.dev/run-uri" not in job["metadata"].get("annotations", {})


def test_every_pod_of_a_pytorchjob_ends_by_itself_and_stays_to_be_read() -> None:
    job = made("pytorchjob", request_for("llama-3-elyza-8b-full-2x8x80gb"))
    assert {each["restartPolicy"] for each in job["spec"]["pytorchReplicaSpecs"].values()} == {
        "Never"
    }
    policy = job["spec"]["runPolicy"]
    assert (policy["cleanPodPolicy"], policy["backoffLimit"], policy["activeDeadlineSeconds"]) == (
        "None",
        0,
        480,
    )


def test_of_several_nodes_the_worst_is_said_with_their_names() -> None:
    assert of_all_nodes({"master-0": [OK], "worker-0": [BAD]}) == [
        BAD.model_copy(update={"found": "550.54 (worker-0)"})
    ]
    assert of_all_nodes({"master-0": [OK], "worker-0": [OK]})[0].found == "580.65 (all 2 nodes)"
    assert of_all_nodes({"master-0": [BAD]}) == [BAD]


def test_a_log_without_a_check_is_a_failure_with_its_last_line() -> None:
    line = json.dumps(
        {"event": "check", "component": "train", "node": "0", **OK.model_dump()},
        separators=(",", ":"),
    )
    assert said_by(["noise", line]) == [OK]
    (finding,) = said_by(["No module named components.train.gpu_check", ""])
    assert (finding.state, finding.check) == ("failed", "GPU check")
    assert "No module named" in finding.found


@pytest.mark.parametrize(
    ("refused", "options"),
    [
        (StillPending("1 of 2 pods are there", "wait"), True),
        (NotStarted("image cannot be pulled", "push it"), False),
    ],
)
def test_pods_that_did_not_start_are_a_failure_and_only_waiting_names_the_options(
    monkeypatch: pytest.MonkeyPatch, refused: NotStarted, options: bool
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise refused

    monkeypatch.setattr(gpu_run, "logs_of", refuse)
    no_cluster: Any = None
    with step_log("doctor") as log:
        (finding,) = probe_gpus(no_cluster, {}, num_nodes=2, start_s=1, check_s=1, log=log)
    assert (finding.state, finding.found) == ("failed", refused.found)
    assert finding.fix is not None
    assert refused.fix in finding.fix
    assert ("--seconds" in finding.fix, "--gpu-nodes one" in finding.fix) == (options, options)
