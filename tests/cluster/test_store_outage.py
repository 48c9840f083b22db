"""The store goes away in the middle of each step of a run whose steps are pods; see tests/support/outage.py.

The pods run this repository's code from the node's disk, so the node must be this machine, as one of `kube-cluster` is.
"""

import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from laptop import store as laptop_store
from tests.cluster.conftest import HOST, ROOT, TestNamespace, kubectl
from tests.cluster.test_accounts import PYTHON_IMAGE
from tests.integration.test_pipeline import tiny_spec
from tests.support.faulty_proxy import faulty_proxy
from tests.support.outage import Outage, StepEnd, assert_outages_cost_only_time
from tests.support.s3_server import s3_server

pytestmark = pytest.mark.slow


@pytest.fixture
def namespace() -> Iterator[TestNamespace]:
    if config.list_kube_config_contexts()[1]["name"] != "kube-cluster":
        pytest.skip("needs a cluster whose node is this machine (context kube-cluster)")
    found = TestNamespace(f"test-{uuid.uuid4().hex[:8]}", client.CoreV1Api(), client.CustomObjectsApi(), {})
    kubectl("create", "namespace", found.name)
    while not [each for each in found.core.list_namespaced_service_account(found.name).items if each.secrets]:
        time.sleep(0.2)
    yield found
    found.core.delete_namespace(found.name)


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    with s3_server(tmp_path / "s3") as server, faulty_proxy(server.endpoint, host=HOST) as proxy:
        for key, value in {**server.env, "AWS_ENDPOINT_URL_S3": proxy.endpoint}.items():
            monkeypatch.setenv(key, value)
        yield Outage(proxy, tmp_path / "s3")


def test_a_store_that_is_away_in_the_middle_of_each_pod_costs_only_time(outage: Outage, namespace: TestNamespace, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, store=f"s3://{laptop_store.BUCKET}/outage", zero="auto")
    run = f"s3://{laptop_store.BUCKET}/outage/tiny"

    def run_step(step: str) -> StepEnd:
        arguments = ["--spec", str(spec)] if step == "prepare_dataset" else ["--run", run]
        return run_in_pod(step, [f"components.{step}", *arguments], namespace, tmp_path)

    assert_outages_cost_only_time(outage, run, run_step)


def run_in_pod(step: str, arguments: list[str], namespace: TestNamespace, folder: Path) -> StepEnd:
    """The step ran to its end in a pod that sees the repository, its Python and the test's folder under their own paths."""
    name = step.replace("_", "-")
    seen = {"code": ROOT, "python": Path(sys.executable).resolve().parents[1], "test": folder}
    settings = {key: value for key, value in os.environ.items() if key.startswith(("AWS_", "HF_"))} | {"HAGANE_WORK": str(folder / "work")}
    container = {
        "name": "main",
        "image": PYTHON_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "workingDir": str(ROOT),
        "command": [sys.executable, "-W", "ignore", "-m", *arguments],
        "env": [{"name": key, "value": value} for key, value in settings.items()],
        "volumeMounts": [{"name": key, "mountPath": str(path)} for key, path in seen.items()],
    }
    volumes = [{"name": key, "hostPath": {"path": str(path), "type": "Directory"}} for key, path in seen.items()]
    pod = {"containers": [container], "volumes": volumes, "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace.name}, "spec": pod})
    while True:
        status: Any = namespace.core.read_namespaced_pod(name, namespace.name).status
        if status.phase in ("Succeeded", "Failed"):
            log = namespace.core.read_namespaced_pod_log(name, namespace.name, _preload_content=False).data.decode(errors="replace")
            return StepEnd(status.container_statuses[0].state.terminated.exit_code, log)
        time.sleep(0.5)
