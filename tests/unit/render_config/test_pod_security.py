import json
from typing import Any

import pytest
import yaml

from components.render_config.render.job_checks import check_job
from components.shared.errors import SpecError
from tests.support.example_jobs import JOBS, job_text
from tests.support.example_trainjob import example_trainjob
from tests.support.pod_security import restricted_problems
from tests.unit.render_config.test_planner import spec_with

SPEC = {"store": "s3://b/r", "hardware": {"gpu_memory_gib": 24}}


def _pod_of_a_trainjob(job: dict[str, Any]) -> dict[str, Any]:
    """As the runtime `hagane` and the patch give it: the trainer's container is the patch's, by name."""
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", JOBS)
def test_pods_of_every_example_keep_to_pod_security_restricted(name: str) -> None:
    replicas = yaml.safe_load(job_text(name))["spec"]["pytorchReplicaSpecs"]
    for replica in replicas.values():
        assert restricted_problems(replica["template"]["spec"]) == []
    assert restricted_problems(_pod_of_a_trainjob(example_trainjob(name))) == []


BEYOND = {
    "runs as root": ({"securityContext": {"runAsNonRoot": False}}, "pytorch: runAsNonRoot is not true"),
    "may escalate": ({"securityContext": {"allowPrivilegeEscalation": None}}, "pytorch: allowPrivilegeEscalation is not false"),
    "keeps capabilities": ({"securityContext": {"capabilities": {}}}, "pytorch: capabilities: ALL is not dropped"),
    "adds one": ({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}, "pytorch: capabilities: added"),
    "user 0": ({"securityContext": {"runAsUser": 0}}, "pytorch: runAsUser 0"),
    "unconfined": ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "pytorch: seccompProfile is not RuntimeDefault"),
}


@pytest.mark.parametrize("change", BEYOND)
def test_the_program_sees_each_change_that_restricted_forbids(change: str) -> None:
    pod = yaml.safe_load(job_text("cpu-two-nodes"))["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    fields, problem = BEYOND[change]
    pod["containers"][0]["securityContext"] |= fields["securityContext"]
    (found,) = restricted_problems(pod)
    assert found.startswith(problem)


REFUSED = {
    "privileged": ({"spec": {"containers": [{"name": "pytorch", "securityContext": {"privileged": True}}]}}, "rights of root on the node"),
    "hostPath": ({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}, "folders of the node"),
    "hostNetwork": ({"spec": {"hostNetwork": True}}, "network of the node"),
    "hostPID": ({"spec": {"hostPID": True}}, "processes of the node"),
    "hostIPC": ({"spec": {"hostIPC": True}}, "shared memory of the node"),
    "hostPort": ({"spec": {"containers": [{"name": "pytorch", "ports": [{"hostPort": 80}]}]}}, "ports of the node"),
}


@pytest.mark.parametrize("field", REFUSED)
@pytest.mark.parametrize("patch", ["patch", "pod_patch"])
@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
def test_a_patch_that_reaches_into_the_node_is_refused_by_name(field: str, patch: str, backend: str) -> None:
    change, gives = REFUSED[field]
    with pytest.raises(SpecError) as raised:
        check_job(spec_with(backend=backend, **SPEC, cluster={patch: change}))
    (line,) = [line for line in raised.value.problems if f"{field}: found" in line]
    assert line.startswith(f"cluster.{patch}: spec.")
    assert line.endswith(f"hagane's pods get no {gives}. Fix: remove it")


@pytest.mark.parametrize("field", ["serviceAccountName", "serviceAccount"])
def test_a_patch_that_takes_another_account_is_refused_and_the_specs_own_is_not(field: str) -> None:
    with pytest.raises(SpecError, match=rf"cluster\.pod_patch: spec\.{field}: found 'admin', allowed is 'hagane-worker'\. Fix: "):
        check_job(spec_with(backend="pytorchjob", **SPEC, cluster={"pod_patch": {"spec": {field: "admin"}}}))
    check_job(spec_with(backend="pytorchjob", **SPEC, cluster={"pod_patch": {"spec": {field: "mine"}}, "service_account": "mine"}))


def test_a_patch_that_stays_in_its_pod_is_taken() -> None:
    patch = {"spec": {"hostNetwork": False, "containers": [{"name": "pytorch", "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}]}}
    check_job(spec_with(backend="pytorchjob", **SPEC, cluster=json.loads(json.dumps({"pod_patch": patch}))))
