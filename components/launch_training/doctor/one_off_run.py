"""A job of one_off_job.py in the cluster: made, waited for, its pods' logs read, and gone again
however this ends."""

import time
from contextlib import suppress
from typing import Any

from components.launch_training.doctor.probe_job import ended_early, has_run, still_waiting
from components.launch_training.job.phases import is_over
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.errors import ClusterError
from components.shared.processes import left_by_signal
from components.shared.step import Log

Fields = dict[str, Any]
TICK_S, REPORT_S = 1.0, 10.0


class NotStarted(ClusterError):
    """Not all pods of the job came to run. `found` says why, `fix` what to do."""

    def __init__(self, found: str, fix: str) -> None:
        self.found, self.fix = found, fix
        super().__init__(f"{found}; {fix}")


class StillPending(NotStarted):
    """Pods are missing or pending when the time to start is over."""


def logs_of(
    cluster: Cluster,
    job: Fields,
    *,
    num_nodes: int,
    start_s: float,
    run_s: float,
    asked_by: str,
    log: Log,
) -> dict[str, list[str]]:
    """Pod, such as `worker-3` -> the lines that it printed. `start_s`: longest wait for all pods to
    run; `run_s`: for their end from then on. `asked_by`: the command, for messages.

    Raises:
        NotStarted: the pods did not come to run.
        ClusterError: the job is refused, or the cluster does not answer.
    """
    name = job["metadata"]["name"]
    by_hand = cluster.deleted_by_hand(name)
    with left_by_signal(
        ending=f"{asked_by}: {name} is being deleted",
        left=f"{asked_by}: {name} may be left: {by_hand}",
    ):
        try:
            cluster.create(job)
            pods = _wait(cluster, name, num_nodes=num_nodes, start_s=start_s, run_s=run_s, log=log)
            return _read(cluster, pods)
        finally:
            with suppress(ClusterError):  # what could not be deleted ends by itself
                cluster.delete(name)


def _wait(
    cluster: Cluster, name: str, *, num_nodes: int, start_s: float, run_s: float, log: Log
) -> list[Fields]:
    """The job's pods, when all are over or their time is."""
    begun = said = time.monotonic()
    running_since: float | None = None
    while True:
        pods = cluster.pods(name)
        ended = [pod for pod in pods if is_over(cluster.kind, pod) or has_run(cluster.kind, pod)]
        if len(ended) >= num_nodes:
            return ended
        _raise_where_one_ended_early(cluster, pods)
        now = time.monotonic()
        started = [pod for pod in pods if pod["status"].get("phase") != "Pending"]
        if len(started) >= num_nodes and running_since is None:
            running_since = now
        if running_since is None and now - begun > start_s:
            raise _still_pending(pods, num_nodes, start_s)
        if running_since is not None and now - running_since > run_s:
            return pods
        if now - said > REPORT_S:
            said = now
            detail = f"{len(started)} of {num_nodes} pods run, {len(ended)} have ended"
            log.info("waiting", job=name, detail=detail)
        time.sleep(TICK_S)


def _raise_where_one_ended_early(cluster: Cluster, pods: list[Fields]) -> None:
    for pod in pods:
        early = ended_early(cluster.kind, pod)
        if early is not None:
            raise NotStarted(early.detail, "hagane doctor SPEC says more of worker pod and image")


def _still_pending(pods: list[Fields], num_nodes: int, start_s: float) -> StillPending:
    pending = next((pod for pod in pods if pod["status"].get("phase") == "Pending"), None)
    why = still_waiting(pending, []).detail or "the job's controller or its queue has made no pod"
    return StillPending(
        f"{len(pods)} of {num_nodes} pods are there after {start_s:.0f} s: {why}",
        "wait until nodes are free, or see nodes and queue by hagane doctor SPEC",
    )


def _read(cluster: Cluster, pods: list[Fields]) -> dict[str, list[str]]:
    by_pod = {}
    for pod in sorted(pods, key=lambda each: each["metadata"]["name"]):
        name = pod["metadata"]["name"]
        lines = cluster.follow_log(name, ended=lambda: True, only_new=False)
        by_pod[cluster.kind.pod_name(pod["metadata"]) or name] = list(lines)
    return by_pod
