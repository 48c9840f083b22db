"""The TrainJob, checked against the field lists of Trainer 2.2 and 2.3."""

from typing import Any

import pytest

from components.render_config.planner import Machine, check_spec, make_plan
from components.render_config.render.job_checks import check_job
from components.render_config.render.pod import planned_job_name
from components.shared.errors import HaganeError
from components.shared.job.training_job import OF_RUNTIME
from tests.support.example_jobs import JOBS
from tests.support.example_trainjob import GOLDEN, example_trainjob, trainjob_text
from tests.support.field_lists import unknown_fields
from tests.support.schemas import schema_problems
from tests.unit.render_config.test_planner import CONFIG, DATASET, spec_with


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    return replicated["template"]["spec"]["template"]


@pytest.mark.parametrize("name", JOBS)
def test_a_trainjob_has_no_field_that_a_version_of_trainer_does_not_know(name: str) -> None:
    assert schema_problems(example_trainjob(name)) == []


def test_a_field_that_only_the_newest_trainer_has_is_not_taken() -> None:
    job = example_trainjob("spot-in-a-queue")
    pod_of(job)["spec"]["terminationGracePeriodSeconds"] = 30
    assert [line.partition(": ")[2] for line in schema_problems(job)] == ["no such field"]
    assert unknown_fields(job, "2.3.0") == []


def test_pods_names_of_the_longest_run_are_dns_labels() -> None:
    for backend, longest_pod in (
        ("pytorchjob", "{}-worker-1023"),
        ("trainjob", "{}-node-0-999-x7k2p"),
    ):
        for characters in range(1, 51):
            spec = spec_with(backend=backend, store="s3://bucket/runs", name="a" * characters)
            assert len(longest_pod.format(planned_job_name(spec))) <= 63
    assert planned_job_name(
        spec_with(backend="trainjob", store="s3://b/r", name="a" * 36 + "-bcd")
    ).startswith("a" * 36 + "-")
    names = {
        planned_job_name(spec_with(backend="trainjob", store="s3://b/r", name="a" * 45 + each))
        for each in "bc"
    }
    assert len(names) == 2


@pytest.mark.parametrize("name", OF_RUNTIME)
def test_a_pod_patch_of_what_the_runtime_decides_is_refused(name: str) -> None:
    spec = spec_with(
        backend="trainjob", store="s3://bucket/runs", cluster={"pod_patch": {"spec": {name: 60}}}
    )
    with pytest.raises(
        HaganeError, match=f"cluster.pod_patch: spec.{name}: a TrainJob has no place for it"
    ):
        check_job(spec)


@pytest.mark.parametrize(
    ("cluster", "checkpoints", "expected"),
    [
        ({}, {}, []),
        ({"runtime": "torch-distributed"}, {}, ["cluster.runtime"]),
        (
            {"max_restarts": 101},
            {"grace_seconds": 121},
            ["cluster.max_restarts", "checkpoints.grace_seconds"],
        ),
    ],
)
def test_what_a_runtime_does_not_keep_is_a_caution_of_the_plan(
    cluster: Any, checkpoints: Any, expected: list[str]
) -> None:
    spec = spec_with(
        backend="trainjob", store="s3://bucket/runs", cluster=cluster, checkpoints=checkpoints
    )
    plan = make_plan(spec, DATASET, CONFIG, machine=Machine())
    assert [
        each.partition(":")[0]
        for each in plan.cautions
        if each.startswith(("cluster", "checkpoints"))
    ] == expected


def test_the_golden_trainjob_is_what_its_spec_makes() -> None:
    assert GOLDEN.read_text(encoding="utf-8") == trainjob_text()


def test_trainers_schema_refuses_an_environment_from_secrets_which_is_why_they_are_files() -> None:
    job = example_trainjob("spot-in-a-queue")
    (container,) = pod_of(job)["spec"]["containers"]
    assert {
        "name": "settings-1",
        "mountPath": "/hagane/environment/01",
        "readOnly": True,
    } in container["volumeMounts"]
    assert {
        "name": "settings-1",
        "secret": {"secretName": "hagane-s3", "optional": True},
    } in pod_of(job)["spec"]["volumes"]
    assert {"name": "HAGANE_ENVIRONMENT", "value": "/hagane/environment"} in job["spec"]["trainer"][
        "env"
    ]
    container["envFrom"] = [{"secretRef": {"name": "hagane-s3"}}]
    assert any(
        problem.endswith("containers.0.envFrom: no such field") for problem in schema_problems(job)
    )


def test_what_trainer_takes_from_its_own_fields_alone_is_reported_there_and_nowhere_else() -> None:
    """Its webhook refuses environment in a patch of `node`, and sets PET_NPROC_PER_NODE by requests
    and limits (v2, torch.go)."""
    job = example_trainjob("full-two-nodes-of-8x80gb")
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "8"
    assert (
        trainer["resourcesPerNode"]["requests"]["memory"]
        == trainer["resourcesPerNode"]["limits"]["memory"]
    )
    assert set(pod_of(job)["spec"]["containers"][0]) == {"name", "volumeMounts", "securityContext"}
    assert not any(each["name"].startswith("PET_") for each in trainer["env"])


def test_a_pod_patch_reaches_both_places_and_the_runtime_is_the_specs() -> None:
    patch = {
        "spec": {
            "shareProcessNamespace": True,
            "containers": [{"name": "node", "image": "mine:1", "stdin": True}],
        }
    }
    job = example_trainjob(
        "spot-in-a-queue", **{"cluster.pod_patch": patch, "cluster.runtime": "torch-spot"}
    )
    assert job["spec"]["runtimeRef"] == {"name": "torch-spot"}
    assert example_trainjob("spot-in-a-queue")["spec"]["runtimeRef"] == {
        "kind": "TrainingRuntime",
        "name": "hagane",
    }
    assert job["spec"]["trainer"]["image"] == "mine:1"
    assert pod_of(job)["spec"]["containers"][0]["stdin"] is True
    refused = sorted(problem.rpartition(".")[2] for problem in schema_problems(job))
    assert refused == ["shareProcessNamespace: no such field", "stdin: no such field"]


def test_labels_of_the_spec_stand_beside_those_by_which_the_job_is_found() -> None:
    job = example_trainjob(
        "spot-in-a-queue",
        **{"cluster.user": "mika", "cluster.labels": {"team": "search", "hagane.dev/run": "x"}},
    )
    assert job["metadata"]["labels"]["hagane.dev/user"] == "mika"
    assert job["metadata"]["labels"]["team"] == "search"
    assert job["metadata"]["labels"]["hagane.dev/run"] != "x"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "spot"
    assert job["spec"]["suspend"] is True


def test_what_no_cluster_can_give_is_reported_before_one_is_asked() -> None:
    patch = {"kind": "MPIJob", "metadata": {"namespace": "elsewhere", "labels": {"a": "b"}}}
    cluster = {"patch": patch, "gang": True, "priority_class": "high"}
    with pytest.raises(HaganeError) as caught:
        check_spec(
            spec_with(backend="trainjob", store="s3://bucket/runs", cluster=cluster),
            CONFIG,
            Machine(),
        )
    reported = [problem.partition(":")[0] for problem in caught.value.problems]
    assert reported == ["cluster.patch", "cluster.patch", "cluster.priority_class", "cluster.gang"]
    assert "set cluster.namespace instead" in caught.value.problems[1]
    check_spec(spec_with(backend="local", cluster=cluster), CONFIG, Machine())


@pytest.mark.parametrize(
    ("metadata", "reported"),
    [
        (
            {"labels": {"app.kubernetes.io/name": "mine"}},
            ["metadata.labels.app.kubernetes.io/name"],
        ),
        (
            {"annotations": {"hagane.dev/run-uri": None}},
            ["metadata.annotations.hagane.dev/run-uri"],
        ),
        ({"annotations": None, "labels": {"hagane.dev/team": "a"}}, ["metadata.annotations"]),
        (None, ["metadata"]),
    ],
)
def test_a_patch_of_what_a_job_is_found_by_is_refused(metadata: Any, reported: list[str]) -> None:
    spec = spec_with(
        backend="pytorchjob", store="s3://bucket/runs", cluster={"patch": {"metadata": metadata}}
    )
    with pytest.raises(HaganeError) as caught:
        check_job(spec)
    assert [problem.split()[1] for problem in caught.value.problems] == reported


@pytest.mark.parametrize(("backend", "own"), [("pytorchjob", "pytorch"), ("trainjob", "node")])
def test_a_patch_of_a_container_that_is_not_there_is_refused(backend: str, own: str) -> None:
    def check(**container: Any) -> None:
        check_job(
            spec_with(
                backend=backend,
                store="s3://b/r",
                cluster={"pod_patch": {"spec": {"containers": [container]}}},
            )
        )

    check(name=own, tty=True)
    check(name="sidecar", image="side:1")
    with pytest.raises(
        HaganeError,
        match=(
            f"cluster.pod_patch: spec.containers: found 'trainer' without an image, .* is '{own}'"
        ),
    ) as caught:
        check(name="trainer", tty=True)
    assert caught.value.exit_code == 2


def test_more_nodes_than_pods_names_have_room_for_are_refused() -> None:
    def check(num_nodes: int) -> None:
        hardware = {"num_nodes": num_nodes, "host_memory_gib": 8}
        check_job(
            spec_with(
                backend="trainjob",
                store="s3://b/r",
                hardware=hardware,
                training={"global_batch": 1024},
            )
        )

    check(1000)
    with pytest.raises(
        HaganeError, match=r"hardware\.num_nodes: found 1001, a TrainJob takes at most 1000"
    ):
        check(1001)
