"""Runs of the longest names: their jobs' pods are made, whose names are DNS labels of at most 63 characters."""

from pathlib import Path

import pytest

from tests.cluster.cluster_run import ClusterRun
from tests.cluster.conftest import TestNamespace, kubectl
from tests.cluster.test_trainjob import PODS
from tests.cluster.trainer import trainer
from tests.s3_server import S3Server

LENGTHS = range(39, 51)
QUICK = {"pod_patch": {"spec": {"terminationGracePeriodSeconds": 1}}}


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
def test_the_pods_of_a_run_with_a_long_name_are_made(
    backend: str, namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    run = ClusterRun(namespace, claim, s3, tmp_path, backend=backend, cluster=QUICK if backend == "pytorchjob" else {})
    if backend == "pytorchjob":
        _each_length(run, backend, "training.kubeflow.org/job-name")
        return
    with trainer(namespace.name):
        _each_length(run, backend, PODS)


def _each_length(run: ClusterRun, backend: str, pods: str) -> None:
    folder = run.uri.rpartition("/")[0]
    for length in LENGTHS:
        name = f"{'name-' * 10}"[: length - 1] + "x"
        run.uri = f"{folder}/{name}"
        run.respecify(name=name)
        with run.launcher() as launcher:
            launcher.wait(lambda: len(run.namespace.pods(pods)) == 2)
            made = sorted(each.metadata.name for each in run.namespace.pods(pods))
            launcher.process.terminate()
            launcher.exit_code(60)
        print(f"{backend}: name of {length} characters: pods {made}")
        assert all(len(each) <= 63 for each in made)
        kubectl("-n", run.namespace.name, "delete", "pods", "--all", "--grace-period=0", "--force")
        run.wait_until_nothing_is_left(pods)
