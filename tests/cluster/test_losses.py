"""A training that is disturbed in every way a cluster can ends with the losses of one that is
not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.shared.store.checkpoints import committed_checkpoints
from tests.cluster.cluster_run import ClusterRun, LocalLauncher, kill_all
from tests.cluster.conftest import TestNamespace, kubectl
from tests.integration.test_pipeline import tiny_spec
from tests.support.command_line import hagane
from tests.support.s3_server import S3Server
from tests.support.tiny_models import write_conversations

EPOCHS = 3
CONVERSATIONS = 400
"""Enough for an epoch to last some seconds, in which a pod can be killed."""
JOB_PODS = "training.kubeflow.org/job-name"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float]]:
    """Step and loss of the same training in two processes of this machine, from start to end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    spec = tiny_spec(folder, precision="fp32", epochs=EPOCHS)
    write_conversations(folder / "train.jsonl", CONVERSATIONS, seed=1)
    tree = yaml.safe_load(spec.read_text())
    tree["evaluation"]["must_improve"] = False
    spec.write_text(yaml.safe_dump(tree))
    done = hagane("run", spec, work=folder / "work")
    assert done.exit_code == 0, done.errors
    history = json.loads((folder / "store/tiny/checkpoints/history.json").read_text())
    return [(step["step"], step["loss"]) for step in history["steps"]]


@pytest.fixture
def run(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> ClusterRun:
    return ClusterRun(
        namespace, claim, s3, tmp_path, training={"epochs": EPOCHS}, num_conversations=CONVERSATIONS
    )


@pytest.fixture
def in_epoch_2(run: ClusterRun) -> Iterator[LocalLauncher]:
    """A launcher whose training has committed its first epoch."""
    with run.launcher() as launcher:
        launcher.wait_for('"event":"progress"')
        launcher.wait(lambda: bool(committed_checkpoints(run.store)))
        yield launcher


def pod_of(run: ClusterRun, kind: str) -> str:
    return run.namespace.pods(f"training.kubeflow.org/replica-type={kind}")[0].metadata.name


def epoch_at_first_loss(launcher: LocalLauncher) -> float:
    """As the last step before it reported."""
    lines = launcher.log.partition('"event":"pod_ended"')[0].splitlines()
    return [json.loads(line)["epoch"] for line in lines if line.startswith('{"event":"progress"')][
        -1
    ]


def finished_as(
    undisturbed: list[tuple[int, float]], run: ClusterRun, launcher: LocalLauncher
) -> None:
    """Exactly: the same sums in the same order, on the same kind of processor, with one thread a
    process."""
    assert launcher.exit_code() == 0, launcher.log[-6000:]
    assert '"event":"restarted"' in launcher.log
    assert '"event":"resumed"' in launcher.log
    assert [checkpoint.epoch for checkpoint in committed_checkpoints(run.store)] == list(
        range(1, EPOCHS + 1)
    )
    assert run.losses == undisturbed


def test_a_worker_killed_in_epoch_2(
    run: ClusterRun, in_epoch_2: LocalLauncher, undisturbed: list[tuple[int, float]]
) -> None:
    kill_all(
        run.namespace, pod_of(run, "worker"), "components.train"
    )  # the uploader's module has a longer name
    finished_as(undisturbed, run, in_epoch_2)
    assert 'exit_code":137' in in_epoch_2.log
    assert 1 < epoch_at_first_loss(in_epoch_2) <= 2


def test_the_masters_pod_deleted(
    run: ClusterRun, in_epoch_2: LocalLauncher, undisturbed: list[tuple[int, float]]
) -> None:
    run.namespace.core.delete_namespaced_pod(pod_of(run, "master"), run.namespace.name)
    finished_as(undisturbed, run, in_epoch_2)


def test_the_node_drained(
    run: ClusterRun, in_epoch_2: LocalLauncher, undisturbed: list[tuple[int, float]]
) -> None:
    """Until it is back, the pods wait for a node, and that is reported."""
    node = run.namespace.pods(JOB_PODS)[0].spec.node_name
    kubectl("cordon", node)
    try:
        for pod in run.namespace.pods(JOB_PODS):
            run.namespace.core.delete_namespaced_pod(pod.metadata.name, run.namespace.name)
        in_epoch_2.wait_for('"phase":"scheduling"', 90)
        assert any(
            "unschedulable" in detail
            for phase, detail in in_epoch_2.phases
            if phase == "scheduling"
        )
    finally:
        kubectl("uncordon", node)
    finished_as(undisturbed, run, in_epoch_2)
