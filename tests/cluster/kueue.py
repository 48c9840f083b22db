"""A stand-in for Kueue, which needs a newer Kubernetes than test clusters have here: its kinds,
whose objects a test writes as Kueue 0.19 did (tests/data/job_objects). Nothing reacts to them but
the launcher."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

WORKLOADS = {"group": "kueue.x-k8s.io", "version": "v1beta2", "plural": "workloads"}


def crd(group: str, version: str, kind: str) -> dict[str, Any]:
    """Of a kind that takes any field; kinds whose name begins with Cluster are the cluster's."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster" if kind.startswith("Cluster") else "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


@contextmanager
def kinds_served(group: str, version: str, *kinds: str) -> Iterator[None]:
    """The API server serves these kinds inside the block."""
    extensions: Any = client.ApiextensionsV1Api()
    made = [crd(group, version, kind) for kind in kinds]
    for each in made:
        extensions.create_custom_resource_definition(each)
    try:
        for each in made:
            while not _is_served(group, version, each["spec"]["names"]["plural"]):
                time.sleep(0.2)
        yield
    finally:
        for each in made:
            extensions.delete_custom_resource_definition(each["metadata"]["name"])
        for each in made:
            while _is_served(group, version, each["spec"]["names"]["plural"]):
                time.sleep(0.2)


def _is_served(group: str, version: str, plural: str) -> bool:
    try:
        client.CustomObjectsApi().list_cluster_custom_object(group, version, plural)
    except ApiException:
        return False
    return True


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
    }


QUOTA_RESERVED = condition(
    "QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue hagane"
)


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
        objects.patch_namespaced_custom_object(
            **WORKLOADS, namespace=namespace, name=name, body=body
        )
