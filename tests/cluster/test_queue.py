"""A job that a queue lets go, takes back and lets go again, and one that nobody admits. Kueue itself needs a newer Kubernetes: the test
flips `suspend` and writes the Workload as it does (kueue.py)."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster_run import NOTHING_STAYS_S, ClusterRun
from tests.cluster.conftest import TestNamespace, kubectl
from tests.cluster.kueue import condition, kinds_served, set_workload
from tests.support.s3_server import S3Server

WORKLOAD = ("kueue.x-k8s.io", "v1beta2", "Workload")
WAITS = condition("QuotaReserved", "False", "Pending", "insufficient unused quota for cpu in flavor pool, 1 more needed")
RESERVED = condition("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue gpus")
ADMITTED = condition("Admitted", "True", "Admitted", "The workload is admitted")
PREEMPTED = condition("Evicted", "True", "Preempted", "Preempted to accommodate a workload")
REQUEUED = condition("Requeued", "True", "Preempted", "Preempted to accommodate a workload")


def test_a_suspended_job_waits_in_its_queue_and_goes_on_where_it_was(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    cluster = {"queue": "gpus", "max_restarts": 0, "start_timeout_minutes": 3}
    run = ClusterRun(namespace, claim, s3, tmp_path, cluster=cluster, training={"epochs": 6})

    def let_go(*conditions: dict[str, str]) -> None:
        flip(namespace, "false")
        set_workload(namespace.jobs()[0], RESERVED, ADMITTED, *conditions)

    with kinds_served(*WORKLOAD), run.launcher() as launcher:
        launcher.wait(lambda: namespace.jobs() != [])
        assert namespace.jobs()[0]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
        set_workload(namespace.jobs()[0], WAITS)
        launcher.wait(lambda: ("queued", f"queue gpus: {WAITS['message']}") in launcher.phases)
        assert namespace.pods("training.kubeflow.org/job-name") == []
        let_go()
        launcher.wait_for('"event":"progress"')
        flip(namespace, "true")
        set_workload(namespace.jobs()[0], WAITS, PREEMPTED)
        launcher.wait(lambda: launcher.phases[-1] == ("preempted", f"{PREEMPTED['message']}; {WAITS['message']}"))
        set_workload(namespace.jobs()[0], WAITS, PREEMPTED, REQUEUED)
        launcher.wait(lambda: launcher.phases[-1][0] == "requeued")
        launcher.wait(lambda: namespace.pods("training.kubeflow.org/job-name") == [], NOTHING_STAYS_S)
        let_go()
        launcher.wait_for('"event":"resumed"')
        assert launcher.exit_code() == 0, launcher.log[-6000:]
        assert '"event":"restarted"' not in launcher.log


def flip(namespace: TestNamespace, suspend: str) -> None:
    patch = f'{{"spec":{{"runPolicy":{{"suspend":{suspend}}}}}}}'
    kubectl("-n", namespace.name, "patch", "pytorchjob", namespace.jobs()[0]["metadata"]["name"], "--type=merge", "-p", patch)


@pytest.mark.parametrize(
    ("has_kueue", "conditions", "problem"),
    [
        (False, (), "cluster.queue: this cluster has no Kueue, so nothing admits the job. Fix: install Kueue"),
        (True, (), "cluster.queue: Kueue made no Workload for the job within 45 s"),
        (
            True,
            (condition("QuotaReserved", "False", "Inadmissible", "LocalQueue nosuch doesn't exist"),),
            "cluster.queue: queue nosuch never admits the job: LocalQueue nosuch doesn't exist. Fix: name a LocalQueue",
        ),
    ],
    ids=["no Kueue", "no Workload", "no such queue"],
)
def test_a_suspended_job_that_nobody_admits_ends_with_the_fix_within_a_minute(
    has_kueue: bool,
    conditions: tuple[Any, ...],
    problem: str,
    namespace: TestNamespace,
    claim: dict[str, str],
    s3: S3Server,
    tmp_path: Path,
    store_env: None,
) -> None:
    run = ClusterRun(namespace, claim, s3, tmp_path, cluster={"queue": "nosuch"})
    if has_kueue:
        with kinds_served(*WORKLOAD):
            seconds = _seconds_until_given_up(run, conditions, problem)
    else:
        seconds = _seconds_until_given_up(run, conditions, problem)
    print(f"given up {seconds:.0f} s after the job was made: {problem}")
    assert seconds < 60
    assert namespace.jobs() == []


def _seconds_until_given_up(run: ClusterRun, conditions: tuple[Any, ...], problem: str) -> float:
    with run.launcher() as launcher:
        launcher.wait_for('"event":"job_created"')
        began = time.monotonic()
        if conditions:
            set_workload(run.namespace.jobs()[0], *conditions)
        assert launcher.exit_code(90) == 2, launcher.log[-6000:]
        assert problem in launcher.log
        return time.monotonic() - began
