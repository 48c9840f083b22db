"""The job of gpu_job.py in the cluster: made, waited for, its pods' logs read, and gone again however this ends."""

import time
from contextlib import suppress
from typing import Any

from components.launch_training.doctor.gpu_job import CHECK, of_all_nodes, said_by
from components.launch_training.doctor.probe_job import ended_early, has_run, still_waiting
from components.launch_training.job.phases import is_over
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.documents.findings import Finding
from components.shared.errors import ClusterError
from components.shared.processes import left_by_signal
from components.shared.step import Log

Fields = dict[str, Any]
TICK_S, TOLD_S = 1.0, 10.0


def probe_gpus(cluster: Cluster, job: Fields, *, num_nodes: int, start_s: float, check_s: float, log: Log) -> list[Finding]:
    """What the checks in all pods said. `start_s`: longest wait for all pods to run; `check_s`: for their checks from then on."""
    name = job["metadata"]["name"]
    by_hand = cluster.deleted_by_hand(name)
    with left_by_signal(ending=f"doctor: {name} is being deleted", left=f"doctor: {name} may be left: {by_hand}"):
        try:
            cluster.create(job)
            return _wait(cluster, name, num_nodes=num_nodes, start_s=start_s, check_s=check_s, log=log)
        except ClusterError as error:
            fix = "see the message; a quota, an admission policy or a permission refuses it"
            return [Finding(check=CHECK, state="failed", found=error.problems[0], mend=fix)]
        finally:
            with suppress(ClusterError):  # what could not be deleted ends by itself
                cluster.delete(name)


def _wait(cluster: Cluster, name: str, *, num_nodes: int, start_s: float, check_s: float, log: Log) -> list[Finding]:
    begun = said = time.monotonic()
    running_since: float | None = None
    while True:
        pods = cluster.pods(name)
        ended = [pod for pod in pods if is_over(cluster.kind, pod) or has_run(cluster.kind, pod)]
        if len(ended) >= num_nodes:
            return _read(cluster, ended)
        for pod in pods:
            early = ended_early(cluster.kind, pod)
            if early is not None:
                return [Finding(check=CHECK, state="failed", found=early.detail, mend="see worker pod and image above")]
        now = time.monotonic()
        started = [pod for pod in pods if pod["status"].get("phase") != "Pending"]
        if len(started) >= num_nodes and running_since is None:
            running_since = now
        if running_since is None and now - begun > start_s:
            return [_not_started(pods, num_nodes, start_s)]
        if running_since is not None and now - running_since > check_s:
            return _read(cluster, pods)
        if now - said > TOLD_S:
            said = now
            log.info("waiting", job=name, detail=f"{len(started)} of {num_nodes} pods run, {len(ended)} have finished their checks")
        time.sleep(TICK_S)


def _not_started(pods: list[Fields], num_nodes: int, start_s: float) -> Finding:
    pending = next((pod for pod in pods if pod["status"].get("phase") == "Pending"), None)
    why = still_waiting(pending, []).detail or "the job's controller or its queue has made no pod"
    found = f"{len(pods)} of {num_nodes} pods are there after {start_s:.0f} s: {why}"
    fix = "wait until the GPUs are free (--seconds), see nodes and queue above, or check one node (--gpu-nodes one)"
    return Finding(check=CHECK, state="failed", found=found, mend=fix)


def _read(cluster: Cluster, pods: list[Fields]) -> list[Finding]:
    by_node: dict[str, list[Finding]] = {}
    for pod in sorted(pods, key=lambda each: each["metadata"]["name"]):
        lines = list(cluster.follow_log(pod["metadata"]["name"], ended=lambda: True, only_new=False))
        by_node[cluster.kind.pod_name(pod["metadata"]) or pod["metadata"]["name"]] = said_by(lines)
    return of_all_nodes(by_node)
