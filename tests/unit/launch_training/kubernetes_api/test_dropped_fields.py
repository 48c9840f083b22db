import copy
from typing import Any

import pytest
import yaml

from components.launch_training.job.kinds import PYTORCHJOB, TRAINJOB
from components.launch_training.kubernetes_api.dropped_fields import dropped, dropped_problem
from components.shared.spec.cluster import ClusterSpec
from tests.support.example_jobs import job_text
from tests.support.example_trainjob import example_trainjob

CONTAINER = ("spec", "pytorchReplicaSpecs", "Master", "template", "spec", "containers", 0)


def trainjob_pod(job: dict[str, Any]) -> dict[str, Any]:
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]["template"]["spec"]


def test_what_an_api_server_keeps_or_fills_in_is_not_dropped() -> None:
    sent = yaml.safe_load(job_text("cpu-two-nodes"))
    kept = copy.deepcopy(sent)
    kept["spec"]["runPolicy"]["schedulingPolicy"] = {"minAvailable": 2}
    assert list(dropped(sent, kept)) == []
    del kept["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0][
        "resources"
    ]
    assert list(dropped(sent, kept)) == [(*CONTAINER, "resources")]


@pytest.mark.parametrize(
    ("spec", "begins"),
    [
        (
            ClusterSpec(),
            (
                "backend: hagane sets "
                "spec.pytorchReplicaSpecs.Master.template.spec.containers[0].stdin, but this "
                "cluster's"
            ),
        ),
        (
            ClusterSpec(pod_patch={"spec": {"containers": [{"name": "pytorch", "stdin": True}]}}),
            (
                "cluster.pod_patch: spec.containers[0].stdin: this cluster's PyTorchJob has no "
                "such field. Fix: "
            ),
        ),
        (
            ClusterSpec(pod_patch={"spec": {"containers": [{"name": "sidecar", "stdin": True}]}}),
            "backend: hagane sets ",
        ),
        (
            ClusterSpec(
                patch={
                    "spec": {
                        "pytorchReplicaSpecs": {
                            "Master": {
                                "template": {
                                    "spec": {"containers": [{"name": "pytorch", "stdin": 1}]}
                                }
                            }
                        }
                    }
                }
            ),
            (
                "cluster.patch: "
                "spec.pytorchReplicaSpecs.Master.template.spec.containers[0].stdin: this "
                "cluster's PyTorchJob"
            ),
        ),
    ],
)
def test_a_dropped_field_is_named_as_the_one_that_the_spec_has(
    spec: ClusterSpec, begins: str
) -> None:
    manifest = yaml.safe_load(job_text("cpu-two-nodes"))
    kept = copy.deepcopy(manifest)
    manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0][
        "stdin"
    ] = True
    (place,) = dropped(manifest, kept)
    assert dropped_problem(place, manifest, PYTORCHJOB, spec).startswith(begins)


def test_of_a_trainjob_a_pods_field_is_the_pod_patchs_and_hagane_own_names_what_to_install() -> (
    None
):
    patch = {"spec": {"shareProcessNamespace": True}}
    manifest = example_trainjob("spot-in-a-queue", **{"cluster.pod_patch": patch})
    kept = copy.deepcopy(manifest)
    del trainjob_pod(kept)["shareProcessNamespace"]
    (place,) = dropped(manifest, kept)
    spec = ClusterSpec(pod_patch=patch)
    assert dropped_problem(place, manifest, TRAINJOB, spec).startswith(
        "cluster.pod_patch: spec.shareProcessNamespace: this cluster's TrainJob has"
    )
    own = dropped_problem(place, manifest, TRAINJOB, ClusterSpec())
    assert own.startswith("backend: hagane sets spec.runtimePatches[0].")
    assert "install Kubeflow Trainer 2.2 or 2.3" in own
