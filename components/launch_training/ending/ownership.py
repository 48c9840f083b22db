"""Whom a job in a cluster belongs to, a run of Kubeflow Pipelines or a launcher outside KFP: only
that one may end it.

Two runs may be started under one name. The second finds the first one's job and follows it; stopped
or failed, it must leave it running. Outside KFP (`hagane run`) one launcher at a time works on a
run (shared/writer.py), so it takes over what another one began there. The other may come back, as a
laptop that slept does, and must leave the job running. A job without any mark belongs to whoever
follows it.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from components.launch_training.job.events import time_of
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.errors import ClusterError
from components.shared.job.training_job import (
    IS_DELETED,
    KFP_RUN_ANNOTATION,
    LAUNCHER_ANNOTATION,
    LEASE_ANNOTATION,
)
from components.shared.step import Log

ANOTHERS = "another run of Kubeflow Pipelines began it"
ANOTHER_LAUNCHERS = "another launcher follows it"
LEAST_MINUTES = 2.0
"""Four times as long as a launcher that is well takes between two marks."""


@dataclass(frozen=True)
class Owner:
    """Who may end a job."""

    kfp_run: str
    """KFP's id of the run, the same at each retry; empty outside KFP."""
    launcher: str
    """Id of the launcher, of this process alone; empty in KFP."""

    @property
    def marks(self) -> dict[str, str | None]:
        """Annotations of its jobs; None for one that must not be there."""
        return {
            KFP_RUN_ANNOTATION: self.kfp_run or None,
            LAUNCHER_ANNOTATION: self.launcher or None,
        }

    def why_not(self, job: dict[str, Any]) -> str:
        """Why the job is not this one's to end; empty where it is."""
        run, launcher = (_annotations(job).get(each, "") for each in self.marks)
        if run:
            if run == self.kfp_run:
                return ""
            return ANOTHERS
        if launcher in ("", self.launcher):
            return ""
        return ANOTHER_LAUNCHERS

    def takes_over_at_once(self, job: dict[str, Any]) -> bool:
        """Whether no other can be following the job: outside KFP, the one that began it lost the
        run's lock to this one."""
        return self.kfp_run == "" and KFP_RUN_ANNOTATION not in _annotations(job)


def this_owner(kfp_run: str) -> Owner:
    """Of what this process begins."""
    return Owner(kfp_run, "" if kfp_run else uuid.uuid4().hex)


def is_anothers(job: dict[str, Any], kfp_run: str) -> bool:
    """Whether another run of KFP than this one owns the job. `kfp_run`: KFP's id of the run, the
    same at each retry; empty outside KFP."""
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


def end_job(cluster: Cluster, name: str, owner: Owner, log: Log) -> str:
    """The job is deleted, unless it is another's; returns what became of it, for whoever reads why
    training ended."""
    try:
        job = cluster.job(name)
        if job is None:
            why_not = ""
        else:
            why_not = owner.why_not(job)
        if why_not:
            log.info("left_running", job=name, namespace=cluster.namespace, why=why_not)
            return f"job {name} is left running: {why_not}"
        cluster.delete(name)
    except ClusterError as error:
        return (
            f"job {name} may still be running ({error}); the reaper deletes it, or: "
            f"{cluster.deleted_by_hand(name)}"
        )
    log.info("job_deleted", job=name, namespace=cluster.namespace)
    return f"job {name} {IS_DELETED}"


def _annotations(job: dict[str, Any]) -> dict[str, str]:
    return job["metadata"].get("annotations") or {}
