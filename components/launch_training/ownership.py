"""Which run of Kubeflow Pipelines a job in a cluster belongs to: only that one may end it.

Two runs may be started under one name. The second finds the first one's job and follows it; stopped or failed, it must leave it at work.
A job without a mark was begun outside KFP (`hagane run`), and whoever follows it may end it.
"""

from datetime import datetime, timedelta
from typing import Any

from components.launch_training.cluster import Cluster
from components.launch_training.job_events import time_of
from components.shared.errors import ClusterError
from components.shared.step import Log
from components.shared.training_job import IS_DELETED, KFP_RUN_ANNOTATION, LEASE_ANNOTATION

ANOTHERS = "another run of Kubeflow Pipelines began it"
LEAST_MINUTES = 2.0
"""Four times as long as a launcher that is well takes between two marks."""


def is_anothers(job: dict[str, Any], kfp_run: str) -> bool:
    """Whether another run of KFP than this one owns the job. `kfp_run`: KFP's id of the run, the same at each retry; empty outside KFP."""
    owner = _annotations(job).get(KFP_RUN_ANNOTATION, "")
    return "" not in (owner, kfp_run) and owner != kfp_run


def is_own(job: dict[str, Any], kfp_run: str) -> bool:
    """Whether just this run of KFP owns the job."""
    return kfp_run != "" and _annotations(job).get(KFP_RUN_ANNOTATION) == kfp_run


def followed_at(job: dict[str, Any]) -> datetime:
    """When a launcher last marked the job; one that never was counts from its creation."""
    return time_of(_annotations(job).get(LEASE_ANNOTATION) or job["metadata"]["creationTimestamp"])


def is_left(job: dict[str, Any], *, now: datetime) -> bool:
    """Whether its launcher has lost it: it has missed several marks."""
    return now - followed_at(job) > timedelta(minutes=LEAST_MINUTES)


def end_job(cluster: Cluster, name: str, kfp_run: str, log: Log) -> str:
    """The job is deleted, unless another run of KFP owns it; returns what became of it, for whoever reads why training ended."""
    try:
        job = cluster.job(name) if kfp_run else None
        if job is not None and is_anothers(job, kfp_run):
            log.info("left_at_work", job=name, namespace=cluster.namespace, why=ANOTHERS)
            return f"job {name} is left at work: {ANOTHERS}"
        cluster.delete(name)
    except ClusterError as error:
        return f"job {name} may still be at work ({error}); the reaper deletes it, or: {cluster.deleted_by_hand(name)}"
    log.info("job_deleted", job=name, namespace=cluster.namespace)
    return f"job {name} {IS_DELETED}"


def _annotations(job: dict[str, Any]) -> dict[str, str]:
    return job["metadata"].get("annotations") or {}
