"""A real cluster for tests: a namespace of its own for each, with k8s/base in it and a way to the session's S3 server."""

import base64
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from tests.support.faulty_proxy import faulty_proxy
from tests.support.s3_server import S3Server

ROOT = Path(__file__).parents[2]
FOR_TESTS = ("kube-cluster", "kind-", "k3d-", "minikube")
HOST = os.environ.get("HAGANE_TEST_HOST", "10.87.7.1")
"""This machine's address as the pods see it."""


@dataclass(frozen=True)
class TestNamespace:
    __test__ = False

    name: str
    core: Any
    objects: Any
    env: dict[str, str]
    """By which this machine and the pods reach the store."""

    def apply(self, *manifests: dict[str, Any]) -> None:
        kubectl("apply", "-f", "-", given=yaml.safe_dump_all(manifests))

    def pods(self, labels: str) -> list[Any]:
        return self.core.list_namespaced_pod(self.name, label_selector=labels).items

    def jobs(self) -> list[dict[str, Any]]:
        return self.objects.list_namespaced_custom_object("kubeflow.org", "v1", self.name, "pytorchjobs")["items"]


def kubectl(*arguments: str, given: str | None = None, failing: bool = False) -> str:
    """What it printed. With `failing` it may fail, as `auth can-i` does to say no."""
    done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or failing, done.stderr
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("needs a cluster for tests with Kubeflow's training operator and hagane's images: set KUBECONFIG")
    config.load_kube_config()
    context = config.list_kube_config_contexts()[1]["name"]
    if not context.startswith(FOR_TESTS):
        pytest.skip(f"context {context!r} is not a cluster for tests (its name begins with one of {', '.join(FOR_TESTS)})")


@pytest.fixture
def namespace(s3: S3Server) -> Iterator[TestNamespace]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    core: Any = client.CoreV1Api()
    with faulty_proxy(s3.endpoint, host=HOST) as proxy:
        env = {**s3.env, "AWS_ENDPOINT_URL_S3": proxy.endpoint}
        found = TestNamespace(name, core, client.CustomObjectsApi(), env)
        for manifest in yaml.safe_load_all(
            kubectl("kustomize", str(ROOT / "k8s" / "base")).replace("namespace: hagane", f"namespace: {name}")
        ):
            if manifest["kind"] == "Namespace":
                manifest["metadata"]["name"] = name
            found.apply(manifest)
        secret = {key: base64.b64encode(env[key].encode()).decode() for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        settings = {"AWS_REGION": env["AWS_REGION"], "AWS_ENDPOINT_URL_S3": proxy.endpoint, "HF_HUB_OFFLINE": "1"}
        found.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hagane-s3", "namespace": name}, "data": secret},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hagane", "namespace": name}, "data": settings},
        )
        for account in ("hagane-launcher", "hagane-worker"):
            while not core.read_namespaced_service_account(account, name).secrets:
                time.sleep(0.2)
        yield found
        core.delete_namespace(name)


@pytest.fixture
def claim(namespace: TestNamespace, tmp_path: Path) -> dict[str, str]:
    """A claim on the test's folder, which pods see under the same path."""
    name = f"claim-{namespace.name}"
    size = {"storage": "1Gi"}
    volume = {"capacity": size, "accessModes": ["ReadOnlyMany"], "hostPath": {"path": str(tmp_path)}, "storageClassName": ""}
    wanted = {"accessModes": ["ReadOnlyMany"], "resources": {"requests": size}, "volumeName": name, "storageClassName": ""}
    namespace.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace.name}, "spec": wanted},
    )
    return {name: str(tmp_path)}


@pytest.fixture
def store_env(namespace: TestNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in namespace.env.items():
        monkeypatch.setenv(key, value)
