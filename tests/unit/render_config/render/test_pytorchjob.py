from typing import Any

import pytest

from components.render_config.planner import Machine, make_plan
from components.render_config.render.pod import merged, planned_job_name
from components.render_config.render.pytorchjob import pytorchjob
from components.shared.documents.plan import Plan
from components.shared.spec.run_spec import RunSpec
from tests.unit.render_config.test_planner import CONFIG, DATASET, spec_with


def planned(**fields: Any) -> tuple[RunSpec, Plan]:
    spec = spec_with(backend="pytorchjob", store="s3://bucket/runs", **fields)
    return spec, make_plan(spec, DATASET, CONFIG, machine=Machine())


def container(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("base", "patch", "expected"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ([{"name": "x", "v": 1}, {"name": "y"}], [{"name": "x", "w": 2}, {"name": "z"}], None),
        ([1, 2], [3], [3]),
    ],
)
def test_a_patch_merges_mappings_and_named_lists_and_removes_by_null(
    base: Any, patch: Any, expected: Any
) -> None:
    assert merged(base, patch) == (
        expected or [{"name": "x", "v": 1, "w": 2}, {"name": "y"}, {"name": "z"}]
    )


def test_nodes_become_a_master_and_workers_with_memory_asked_for_and_limited_to_the_same() -> None:
    spec, plan = planned(hardware={"num_nodes": 4}, training={"global_batch": 8})
    job = pytorchjob(spec, plan)
    assert {
        kind: each["replicas"] for kind, each in job["spec"]["pytorchReplicaSpecs"].items()
    } == {"Master": 1, "Worker": 3}
    assert {each["restartPolicy"] for each in job["spec"]["pytorchReplicaSpecs"].values()} == {
        "ExitCode"
    }
    resources = container(job)["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert (
        int(resources["limits"]["memory"].removesuffix("Mi")) * 2**20
        > plan.memory.host_bytes + 400 * 2**20
    )
    assert container(job)["args"] == ["s3://bucket/runs/t"]


def test_one_node_has_no_workers_and_a_queue_holds_the_job_back() -> None:
    job = pytorchjob(*planned(cluster={"queue": "gpus", "gang": True, "run_timeout_hours": 2}))
    assert list(job["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    policy = job["spec"]["runPolicy"]
    assert (policy["suspend"], policy["schedulingPolicy"], policy["activeDeadlineSeconds"]) == (
        True,
        {"minAvailable": 1},
        7200,
    )
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_gpus_are_asked_for_by_the_clusters_name_for_them() -> None:
    hardware = {"gpu": "a100-80gb", "processes_per_node": 2}
    job = pytorchjob(
        *planned(
            hardware=hardware, training={"global_batch": 8}, cluster={"gpu_resource": "amd.com/gpu"}
        )
    )
    assert container(job)["resources"]["limits"]["amd.com/gpu"] == "2"
    assert job["spec"]["nprocPerNode"] == "2"


def test_secrets_stand_by_name_alone_and_patches_reach_every_pod() -> None:
    env = [{"name": "NCCL_DEBUG", "value": "INFO"}]
    patch = {"spec": {"containers": [{"name": "pytorch", "env": env}]}}
    job = pytorchjob(
        *planned(
            hardware={"num_nodes": 2},
            training={"global_batch": 8},
            cluster={"pod_patch": patch, "secrets": ["keys"]},
        )
    )
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        (found,) = replica["template"]["spec"]["containers"]
        assert env[0] in found["env"]
        assert len(found["env"]) > 5
        assert {"secretRef": {"name": "keys", "optional": True}} in found["envFrom"]


def test_the_jobs_name_is_the_runs_and_short_enough_for_its_pods() -> None:
    first, _ = planned(name="a" * 50)
    other = first.model_copy(update={"store": "s3://other"})
    assert planned_job_name(first) != planned_job_name(other)
    assert len(f"{planned_job_name(first)}-worker-1023") <= 63
