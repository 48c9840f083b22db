"""A job that a queue lets go, takes back and lets go again. Kueue itself needs a newer Kubernetes: the test flips `suspend` as it does."""

from pathlib import Path

from tests.cluster.cluster_run import NOTHING_STAYS_S, ClusterRun
from tests.cluster.conftest import TestNamespace, kubectl
from tests.s3_server import S3Server


def test_a_suspended_job_waits_in_its_queue_and_goes_on_where_it_was(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    cluster = {"queue": "gpus", "max_restarts": 0, "start_timeout_minutes": 3}
    run = ClusterRun(namespace, claim, s3, tmp_path, cluster=cluster, training={"epochs": 6})

    def suspend(value: str) -> None:
        patch = f'{{"spec":{{"runPolicy":{{"suspend":{value}}}}}}}'
        kubectl("-n", namespace.name, "patch", "pytorchjob", namespace.jobs()[0]["metadata"]["name"], "--type=merge", "-p", patch)

    queued = ("queued", "suspended until queue gpus admits it")
    with run.launcher() as launcher:
        launcher.wait(lambda: queued in launcher.phases)
        assert namespace.jobs()[0]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
        assert namespace.pods("training.kubeflow.org/job-name") == []
        suspend("false")
        launcher.wait_for('"event":"progress"')
        suspend("true")
        launcher.wait(lambda: launcher.phases[-1] == queued)
        launcher.wait(lambda: namespace.pods("training.kubeflow.org/job-name") == [], NOTHING_STAYS_S)
        suspend("false")
        launcher.wait_for('"event":"resumed"')
        assert launcher.exit_code() == 0, launcher.log[-6000:]
        assert '"event":"restarted"' not in launcher.log
