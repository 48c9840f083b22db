"""The Role of k8s/base on a real API server: enough for all that the launcher does, and nothing in
it that it could do without."""

import queue
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException

from components.launch_training.job.kinds import PYTORCHJOB
from components.launch_training.job.permissions import needed
from components.launch_training.job.phases import is_over
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.errors import ClusterError
from components.shared.job.images import read_images
from components.shared.job.permissions import OF_QUEUES, Permission, refusals
from components.shared.spec.cluster import ClusterSpec
from tests.cluster.conftest import ROOT, TestNamespace
from tests.cluster.launcher import cluster_as, kubeconfig_of

ROLE = next(
    each
    for each in yaml.safe_load_all((ROOT / "k8s" / "base" / "launcher-role.yaml").read_text())
    if each["kind"] == "Role"
)
VERBS = [
    Permission(verb, group, resource)
    for rule in ROLE["rules"]
    for group in rule["apiGroups"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
    # Without a right on queues a job is followed all the same, and TrainJobs are not served here.
    if Permission(verb, group, resource) not in OF_QUEUES and group != "trainer.kubeflow.org"
]
JOBS = {"group": "kubeflow.org", "version": "v1", "plural": "pytorchjobs"}


@pytest.fixture
def launcher(namespace: TestNamespace, tmp_path: Path) -> Cluster:
    return cluster_as(kubeconfig_of("hagane-launcher", namespace, tmp_path))


def job(name: str) -> dict[str, Any]:
    """The smallest that prints a line."""
    container = {
        "name": "pytorch",
        "image": read_images().of("launch_training"),
        "command": ["python", "-c", "print('here')"],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    template = {
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 1,
            "serviceAccountName": "hagane-worker",
        }
    }
    replica = {"replicas": 1, "restartPolicy": "Never", "template": template}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "labels": {"of": "test"}},
        "spec": {
            "runPolicy": {"cleanPodPolicy": "None"},
            "pytorchReplicaSpecs": {"Master": replica},
        },
    }


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_role_lets_the_launcher_begin_follow_mark_read_and_end_a_job(launcher: Cluster) -> None:
    launcher.check_permissions()
    launcher.check_fields(job("life-check"), ClusterSpec())
    assert launcher.create(job("life"))
    seen = launcher.watch("life", queue.Queue())
    wait(lambda: any(is_over(PYTORCHJOB, pod) for pod in seen.pods.values()))
    (pod,) = launcher.pods("life")
    assert list(
        launcher.follow_log(pod["metadata"]["name"], ended=lambda: True, only_new=False)
    ) == ["here"]
    launcher.annotate("life", {"marked": "yes"})
    wait(lambda: (seen.job or {})["metadata"].get("annotations", {}).get("marked") == "yes", 10)
    wait(lambda: seen.events != [], 10)
    assert [each["metadata"]["name"] for each in launcher.jobs({"of": "test"})] == ["life"]
    launcher.delete("life")
    wait(lambda: launcher.job("life") is None and launcher.pods("life") == [])


def uses(launcher: Cluster, permission: Permission) -> Any:
    """What the launcher asks of the API server by a permission: its own method, or the call that it
    makes in a thread and repeats."""
    core, objects, where = (
        launcher._core,
        launcher._objects,
        {**JOBS, "namespace": launcher.namespace},
    )
    followed = {"watch": True, "timeout_seconds": 1}
    calls: dict[tuple[str, str], Callable[[], Any]] = {
        ("create", "pytorchjobs"): lambda: launcher.create(job("refused")),
        ("get", "pytorchjobs"): lambda: launcher.job("refused"),
        ("list", "pytorchjobs"): lambda: launcher.jobs({}),
        ("delete", "pytorchjobs"): lambda: launcher.delete("refused"),
        ("list", "pods"): lambda: launcher.pods("refused"),
        ("watch", "pytorchjobs"): lambda: objects.list_namespaced_custom_object(
            **where, **followed
        ),
        ("patch", "pytorchjobs"): lambda: objects.patch_namespaced_custom_object(
            **where, name="refused", body={}
        ),
        ("watch", "pods"): lambda: core.list_namespaced_pod(
            launcher.namespace, _preload_content=False, **followed
        ),
        ("list", "events"): lambda: core.list_namespaced_event(launcher.namespace),
        ("watch", "events"): lambda: core.list_namespaced_event(
            launcher.namespace, _preload_content=False, **followed
        ),
        ("get", "pods/log"): lambda: core.read_namespaced_pod_log("refused", launcher.namespace),
    }
    return calls[permission.verb, permission.resource]()


@pytest.mark.parametrize("removed", VERBS, ids=str)
def test_without_one_verb_no_job_is_begun_and_what_needs_it_is_refused(
    removed: Permission, launcher: Cluster, namespace: TestNamespace
) -> None:
    rules = [
        {"apiGroups": [each.group], "resources": [each.resource], "verbs": [each.verb]}
        for each in VERBS
        if each != removed
    ]  # one rule each, as rules of the Role share verbs among resources
    namespace.apply(
        {
            **ROLE,
            "metadata": {"name": "hagane-launcher", "namespace": namespace.name},
            "rules": rules,
        }
    )

    def reported() -> list[str]:
        try:
            launcher.check_permissions()
        except ClusterError as error:
            return list(error.problems)
        return []

    wait(lambda: reported() != [], 10)  # the API server hears of a changed Role by watching
    line = (
        f"cluster: may not {removed} in namespace {namespace.name}: not allowed (403); "
        "k8s/base/launcher-role.yaml grants it. Fix: "
    )
    assert reported() == refusals([removed], namespace.name)
    assert reported()[0].startswith(line)
    with pytest.raises((ClusterError, ApiException), match=r"403|Forbidden"):
        uses(launcher, removed)
    assert namespace.jobs() == []


DENIED = {
    "reads no secret": ("get", "secrets"),
    "reads no secret by name": ("get", "secret", "hagane-s3"),
    "reads no config map": ("get", "configmap", "hagane"),
    "makes no pod": ("run", "made", "--image=localhost/none:1"),
    "deletes no pod": ("delete", "pod", "any"),
    "enters no pod": ("exec", "any", "--", "true"),
    "grants nothing": (
        "create",
        "rolebinding",
        "more",
        "--clusterrole=cluster-admin",
        "--serviceaccount=default:default",
    ),
    "sees no node": ("get", "nodes"),
    "sees no namespace": ("get", "namespaces"),
    "sees no pod elsewhere": ("-n", "kube-system", "get", "pods"),
    "sees no job elsewhere": ("-n", "default", "get", "pytorchjobs"),
    "deletes no job elsewhere": ("-n", "default", "delete", "pytorchjob", "any"),
    "speaks for nobody": ("--as", "system:serviceaccount:kube-system:default", "get", "pods"),
}


def test_secrets_other_namespaces_and_nodes_are_denied_to_launcher_and_workers(
    namespace: TestNamespace, tmp_path: Path
) -> None:
    for account in ("hagane-launcher", "hagane-worker"):
        file = kubeconfig_of(account, namespace, tmp_path)
        for what, arguments in DENIED.items():
            done = subprocess.run(
                ["kubectl", "--kubeconfig", str(file), *arguments],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode != 0, f"{account} {what}: {done.stdout}"
            assert "forbidden" in done.stderr.lower(), f"{account} {what}: {done.stderr}"


def test_the_workers_account_may_nothing(namespace: TestNamespace, tmp_path: Path) -> None:
    worker = cluster_as(kubeconfig_of("hagane-worker", namespace, tmp_path))
    with pytest.raises(ClusterError) as caught:
        worker.check_permissions()
    assert len(caught.value.problems) == len(needed(PYTORCHJOB))
