"""The `pytorchjob` backend on a real cluster: launcher and workers in pods, from hagane's images, under k8s/base's accounts."""

from pathlib import Path

import pytest

from components.shared.store.checkpoints import committed_checkpoints
from tests.cluster.cluster_run import NOTHING_STAYS_S, ClusterRun, kill_all
from tests.cluster.conftest import TestNamespace
from tests.support.s3_server import S3Server


@pytest.mark.usefixtures("store_env")
def test_a_spec_is_trained_on_two_pods_and_its_adapter_exported(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    run = ClusterRun(namespace, claim, s3, tmp_path)
    run.launch()
    told: list[str] = []

    def over() -> bool:
        told.append(run.status())
        return run.phase() in ("Succeeded", "Failed")

    run.wait(over, 300)
    assert run.phase() == "Succeeded", run.log()[-6000:]
    assert run.phases()[-1] == "succeeded"
    assert "running" in run.phases()
    assert [checkpoint.epoch for checkpoint in committed_checkpoints(run.store)] == [1, 2]
    names = [entry.name for entry in committed_checkpoints(run.store)[-1].manifest.files]
    assert any("pp_rank_0" in name for name in names)
    assert any("pp_rank_1" in name for name in names)
    assert sum(stored.key.startswith("logs/") for stored in run.store.list("logs/")) == 2
    assert any("running" in each for each in told), told[-1]
    run.step("export_adapter", "--run", run.uri)
    assert run.store.read_bytes("adapter/manifest.json")


@pytest.mark.usefixtures("store_env")
def test_a_killed_launcher_finds_its_job_again_and_a_stopped_one_leaves_nothing(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    run = ClusterRun(namespace, claim, s3, tmp_path, training={"method": "lora", "epochs": 40, "global_batch": 4, "precision": "fp32"})
    run.launch("first")
    run.wait(lambda: "running" in run.phases("first"), launcher="first")
    (job,) = namespace.jobs()
    kill_all(namespace, "first", "kfp.dsl.executor_main")  # by SIGKILL: a deleted pod gets SIGTERM first, and would delete its job
    run.wait(lambda: run.phase("first") == "Failed", NOTHING_STAYS_S, "first")
    run.launch("second")
    run.wait(lambda: '"event":"job_found"' in run.log("second"), launcher="second")
    assert [each["metadata"]["uid"] for each in namespace.jobs()] == [job["metadata"]["uid"]]
    run.wait(lambda: '"event":"progress"' in run.log("second"), launcher="second")
    namespace.core.delete_namespaced_pod("second", namespace.name, grace_period_seconds=30)
    run.wait(lambda: namespace.jobs() == [] and namespace.pods("training.kubeflow.org/job-name") == [], NOTHING_STAYS_S, "second")
