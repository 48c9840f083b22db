"""A stand-in for Kueue, which needs a newer Kubernetes than test clusters have here: the kind Workload, whose objects a test writes as
Kueue 0.19 did (tests/data/job_objects). Nothing reacts to them but the launcher."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

WORKLOADS = {"group": "kueue.x-k8s.io", "version": "v1beta2", "plural": "workloads"}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workloads.kueue.x-k8s.io"},
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "Workload", "plural": "workloads", "singular": "workload"},
        "versions": [
            {
                "name": "v1beta2",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@contextmanager
def workload_kind(namespace: str) -> Iterator[None]:
    """The API server serves Workloads inside the block."""
    extensions: Any = client.ApiextensionsV1Api()
    extensions.create_custom_resource_definition(CRD)
    try:
        while not _is_served(namespace):
            time.sleep(0.2)
        yield
    finally:
        extensions.delete_custom_resource_definition(CRD["metadata"]["name"])


def _is_served(namespace: str) -> bool:
    try:
        client.CustomObjectsApi().list_namespaced_custom_object(**WORKLOADS, namespace=namespace)
    except ApiException:
        return False
    return True


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}


def set_workload(job: dict[str, Any], *conditions: dict[str, str]) -> None:
    """The job's Workload has these conditions."""
    namespace, name = job["metadata"]["namespace"], f"workload-{job['metadata']['name']}"
    metadata = {"name": name, "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}}
    body = {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "Workload",
        "metadata": metadata,
        "status": {"conditions": list(conditions)},
    }
    objects: Any = client.CustomObjectsApi()
    try:
        objects.create_namespaced_custom_object(**WORKLOADS, namespace=namespace, body=body)
    except ApiException as error:
        if error.status != 409:
            raise
        objects.patch_namespaced_custom_object(**WORKLOADS, namespace=namespace, name=name, body=body)
