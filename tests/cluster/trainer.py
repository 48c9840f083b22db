"""A stand-in for Kubeflow Trainer 2, written by hand from its sources (v2.3: torch and jobset
plugins), for TrainJobs on the runtime torch-distributed: it makes a job's pods, gives them what
torchrun reads, and says how they ended.

The real one needs a newer Kubernetes than test clusters have here. Kept from it: names and labels
of pods, PET_ variables, restart of a container inside its pod (JobSet's OnFailure), conditions,
suspension. Different: TrainJob owns the pods itself, without JobSet and Job between them, and the
master is found by a Service of its own, for want of pods' own names in this DNS.
"""

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

JOBS = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
INDEX = "batch.kubernetes.io/job-completion-index"
PORT = 29500
CRDS_VARIABLE = "HAGANE_TEST_CRDS"
"""Folder of CRDs as their projects publish them; none is kept here."""
NOT_TAKEN = {
    "default",
    "x-kubernetes-validations",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
}
"""Words of the CRD's schema; a list by keys needs defaults, which 1.20 refuses beside them."""
TICK_S = 0.3


def installable_crd(plural: str = "trainjobs") -> dict[str, Any]:
    """One of Trainer's CRDs as Kubernetes 1.20 takes it: its structure whole, without defaults and
    rules that came later."""
    folder = os.environ.get(CRDS_VARIABLE)
    if not folder:
        pytest.skip(
            f"needs Trainer's CRD: set {CRDS_VARIABLE} to a folder with those of a release of "
            "Trainer"
        )
    crd = yaml.safe_load(Path(folder, f"trainer.kubeflow.org_{plural}.yaml").read_text())
    for version in crd["spec"]["versions"]:
        version["schema"] = _without(version["schema"], NOT_TAKEN)
    return crd


def _without(tree: Any, keys: set[str], *, names: bool = False) -> Any:
    """`names`: the keys at hand are names of fields, not words of the schema."""
    if isinstance(tree, list):
        return [_without(each, keys) for each in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: _without(value, keys, names=key == "properties" and not names)
        for key, value in tree.items()
        if names or key not in keys
    }


@contextmanager
def crd_served(plural: str) -> Iterator[None]:
    """One of Trainer's kinds is there inside the block, and gone after it."""
    extensions: Any = client.ApiextensionsV1Api()
    crd = installable_crd(plural)
    extensions.create_custom_resource_definition(crd)
    try:
        while not _is_served(plural):
            time.sleep(TICK_S)
        yield
    finally:
        extensions.delete_custom_resource_definition(crd["metadata"]["name"])
        while _is_served(plural):
            time.sleep(TICK_S)


@contextmanager
def trainer(namespace: str) -> Iterator[None]:
    """The CRD is there, and its controller runs, inside the block."""
    over = threading.Event()
    controller = threading.Thread(target=_control, args=(namespace, over), daemon=True)
    with crd_served(JOBS["plural"]):
        controller.start()
        try:
            yield
        finally:
            over.set()
            controller.join()


def _is_served(plural: str) -> bool:
    with suppress(ApiException):
        client.CustomObjectsApi().list_cluster_custom_object(JOBS["group"], JOBS["version"], plural)
        return True
    return False


def _control(namespace: str, over: threading.Event) -> None:
    while not over.wait(TICK_S):
        with suppress(
            ApiException, HTTPError
        ):  # a job or pod may go while it is looked at, an answer may come late
            objects: Any = client.CustomObjectsApi()
            for job in objects.list_namespaced_custom_object(**JOBS, namespace=namespace)["items"]:
                _look_at(job, namespace)


def _look_at(job: dict[str, Any], namespace: str) -> None:
    core: Any = client.CoreV1Api()
    name = job["metadata"]["name"]
    ended = any(
        each["status"] == "True" and each["type"] in ("Complete", "Failed")
        for each in job.get("status", {}).get("conditions", [])
    )
    if ended or "deletionTimestamp" in job["metadata"]:
        return
    selector = f"jobset.sigs.k8s.io/jobset-name={name}"
    pods = [
        each
        for each in core.list_namespaced_pod(namespace, label_selector=selector).items
        if not each.metadata.deletion_timestamp
    ]
    if job["spec"].get("suspend"):
        for pod in pods:
            core.delete_namespaced_pod(pod.metadata.name, namespace)
        return
    there = {pod.metadata.labels[INDEX] for pod in pods}
    for index in range(job["spec"]["trainer"]["numNodes"]):
        if str(index) not in there:
            if index == 0:
                _make_service(job, namespace)
            core.create_namespaced_pod(namespace, _pod(job, index))
            return
    phases = {pod.status.phase for pod in pods}
    if "Failed" in phases or phases == {"Succeeded"}:
        _conclude(job, namespace, "Failed" if "Failed" in phases else "Complete")


def _conclude(job: dict[str, Any], namespace: str, kind: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": kind,
        "status": "True",
        "reason": f"AllJobs{kind}",
        "message": f"jobset {kind.lower()}",
        "lastTransitionTime": now,
    }
    objects: Any = client.CustomObjectsApi()
    objects.patch_namespaced_custom_object_status(
        **JOBS,
        namespace=namespace,
        name=job["metadata"]["name"],
        body={"status": {"conditions": [condition]}},
    )


def _owned(job: dict[str, Any], name: str, labels: dict[str, str]) -> dict[str, Any]:
    owner = {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
    }
    return {"name": name, "labels": labels, "ownerReferences": [{**owner, "controller": True}]}


def _labels(job: dict[str, Any], index: int) -> dict[str, str]:
    name = job["metadata"]["name"]
    return {
        "jobset.sigs.k8s.io/jobset-name": name,
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
        INDEX: str(index),
    }


def _make_service(job: dict[str, Any], namespace: str) -> None:
    body = {
        "metadata": _owned(job, f"{job['metadata']['name']}-node-0-0", {}),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": _labels(job, 0),
            "ports": [{"port": PORT}],
        },
    }
    with suppress(ApiException):  # it is there
        core: Any = client.CoreV1Api()
        core.create_namespaced_service(namespace, body)


def _pod(job: dict[str, Any], index: int) -> dict[str, Any]:
    name, given = job["metadata"]["name"], job["spec"]["trainer"]
    (replicated,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"][
        "replicatedJobs"
    ]
    patch = replicated["template"]["spec"]["template"]
    (container,) = patch["spec"]["containers"]
    torch = {
        "PET_NNODES": str(given["numNodes"]),
        "PET_NPROC_PER_NODE": str(given["numProcPerNode"]),
        "PET_NODE_RANK": str(index),
        "PET_MASTER_ADDR": f"{name}-node-0-0",
        "PET_MASTER_PORT": str(PORT),
    }
    node = {
        **container,
        **{key: given[key] for key in ("image", "command", "args")},
        "resources": given["resourcesPerNode"],
        "env": [*given["env"], *({"name": key, "value": value} for key, value in torch.items())],
    }
    metadata = _owned(
        job,
        f"{name}-node-0-{index}-{uuid.uuid4().hex[:5]}",
        {**patch["metadata"]["labels"], **_labels(job, index)},
    )
    return {
        "metadata": metadata,
        "spec": {**patch["spec"], "restartPolicy": "OnFailure", "containers": [node]},
    }
