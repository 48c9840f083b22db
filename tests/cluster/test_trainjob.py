"""The `trainjob` backend, followed on a real API server and kubelet; the controller is a stand-in (trainer.py says for what)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.launch_training.kubernetes_api.dropped_fields import dropped
from components.launch_training.reap import reap_run
from components.shared.step import step_log
from components.shared.store.checkpoints import committed_checkpoints
from tests.cluster.cluster_run import ClusterRun, kill_all
from tests.cluster.conftest import ROOT, TestNamespace
from tests.cluster.trainer import JOBS, crd_served, trainer
from tests.support.s3_server import S3Server

PODS = "jobset.sigs.k8s.io/jobset-name"


@pytest.fixture
def trained(namespace: TestNamespace, store_env: None) -> Iterator[TestNamespace]:
    with trainer(namespace.name):
        yield namespace


def jobs(namespace: TestNamespace) -> list[dict[str, Any]]:
    return namespace.objects.list_namespaced_custom_object(**JOBS, namespace=namespace.name)["items"]


def test_a_trainjob_is_trained_on_two_pods_through_a_killed_process(
    trained: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    run = ClusterRun(trained, claim, s3, tmp_path, backend="trainjob", training={"epochs": 4})
    assert run.store.read_bytes("plan/trainjob.yaml")
    with run.launcher() as launcher:
        launcher.wait_for('"event":"progress"')
        launcher.wait(lambda: bool(committed_checkpoints(run.store)))
        before = {pod.metadata.uid for pod in trained.pods(PODS)}
        kill_all(trained, trained.pods(f"{PODS},batch.kubernetes.io/job-completion-index=1")[0].metadata.name, "components.train")
        assert launcher.exit_code() == 0, launcher.log[-6000:]
    assert {pod.metadata.uid for pod in trained.pods(PODS)} == before
    assert '"event":"restarted"' in launcher.log
    assert '"event":"resumed"' in launcher.log
    assert launcher.phases[-1][0] == "succeeded"
    assert [checkpoint.epoch for checkpoint in committed_checkpoints(run.store)] == [1, 2, 3, 4]


def test_a_programs_own_error_ends_a_trainjob_whose_runtime_would_try_again(
    trained: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    command = ["python", "-c", "print('no such thing'); raise SystemExit(3)"]
    patch = {"spec": {"containers": [{"name": "node", "command": command}]}}
    run = ClusterRun(trained, claim, s3, tmp_path, backend="trainjob", hardware={"num_nodes": 1}, cluster={"pod_patch": patch})
    with run.launcher() as launcher:
        assert launcher.exit_code(90) == 1, launcher.log[-6000:]
    assert "training: node-0 ended with exit code 3; its last line: no such thing" in launcher.log
    assert jobs(trained) == []


def test_a_field_that_no_trainjob_has_is_refused_and_a_left_job_is_reaped(
    trained: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    cluster = {"queue": "gpus", "patch": {"spec": {"trainer": {"numNode": 3}}}}
    run = ClusterRun(trained, claim, s3, tmp_path, backend="trainjob", hardware={"num_nodes": 1}, cluster=cluster)
    with run.launcher() as launcher:
        assert launcher.exit_code(60) == 2, launcher.log[-6000:]
    assert "cluster.patch: spec.trainer.numNode: this cluster's TrainJob has no such field" in launcher.log
    assert jobs(trained) == []
    run.respecify(cluster={"queue": "gpus", "namespace": trained.name})
    with run.launcher() as launcher:
        launcher.wait(lambda: launcher.phases[-1:] == [("queued", "suspended until queue gpus admits it")])
        launcher.process.kill()
    (job,) = jobs(trained)
    with step_log("launch_training") as log:
        assert reap_run(run.uri, log) == [job["metadata"]["name"]]
    assert jobs(trained) == []


def test_the_overlays_runtime_is_kept_whole_by_trainers_own_schema(namespace: TestNamespace) -> None:
    runtime = yaml.safe_load((ROOT / "k8s" / "overlays" / "trainjob" / "runtime.yaml").read_text())
    where = {**JOBS, "plural": "trainingruntimes", "namespace": namespace.name}
    with crd_served("trainingruntimes"):
        kept = namespace.objects.create_namespaced_custom_object(**where, body=runtime, dry_run="All")
        assert list(dropped(runtime, kept)) == []
        runtime["spec"]["template"]["spec"]["failurePolicy"]["maxRestart"] = 3
        kept = namespace.objects.create_namespaced_custom_object(**where, body=runtime, dry_run="All")
    assert list(dropped(runtime, kept)) == [("spec", "template", "spec", "failurePolicy", "maxRestart")]
