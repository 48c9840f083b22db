"""Kueue's Workload of a job, as the Kubernetes API has it. One right is needed: to list
workloads.kueue.x-k8s.io."""

from typing import Any

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from components.launch_training.job.workload import JOB_UID_LABEL, Queueing, queue_of

Fields = dict[str, Any]
GROUP = "kueue.x-k8s.io"
REQUEST_S = 20
NOT_ALLOWED = "the launcher's account may not list workloads.kueue.x-k8s.io (k8s/base)"


def kueue_version() -> str | None:
    """The version of Kueue's API that the cluster prefers; None where there is no Kueue."""
    answer: Any = client.ApisApi().get_api_versions(_request_timeout=REQUEST_S)
    return next(
        (each.preferred_version.version for each in answer.groups if each.name == GROUP), None
    )


def poll_workload(job: Fields, namespace: str, *, before: Queueing) -> Queueing:
    """What is known now of a job in a queue; what was known before while the API server does not
    answer."""
    if queue_of(job) is None:
        return Queueing()
    try:
        version = kueue_version()
        if version is None:
            return Queueing(no_kueue=True)
        found: Any = client.CustomObjectsApi().list_namespaced_custom_object(
            GROUP,
            version,
            namespace,
            "workloads",
            label_selector=f"{JOB_UID_LABEL}={job['metadata']['uid']}",
            _request_timeout=REQUEST_S,
        )
    except ApiException as error:
        if error.status == 403:
            return Queueing(unread=NOT_ALLOWED)
        return before
    except (urllib3.exceptions.HTTPError, OSError, ValueError, LookupError, TypeError):
        return before
    return Queueing(workload=next(iter(found["items"]), None))
