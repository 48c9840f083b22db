"""The probe of probe.py in the cluster: made, waited for, heard, and gone again however this ends."""

import time
from contextlib import suppress
from typing import Any

from components.launch_training import cluster_facts
from components.launch_training.cluster import Cluster
from components.launch_training.cluster_facts import NotAllowed
from components.launch_training.kinds import PYTORCHJOB
from components.launch_training.phases import is_over
from components.launch_training.probe import Probed, ended_early, heard, probe_pod, still_waiting
from components.shared.errors import ClusterError
from components.shared.processes import left_by_signal
from components.shared.step import Log

Fields = dict[str, Any]
TICK_S = 0.5
NO_POD_S = 20.0
"""After which an operator that is at work has made a job's pod, or the cluster has said why it refuses it."""
TOLD_S = 10.0


def probe(cluster: Cluster, job: Fields, *, as_pod: bool, seconds: float, log: Log) -> Probed:
    """What the probe told. Nothing is left of it: Ctrl-C and SIGTERM delete it too."""
    name = job["metadata"]["name"]
    by_hand = f"kubectl -n {cluster.namespace} delete {'pod' if as_pod else cluster.kind.plural} {name}"
    stop = left_by_signal(ending=f"doctor: {name} is being deleted", left=f"doctor: {name} may be left; it ends by itself, or: {by_hand}")
    with stop:
        try:
            if as_pod:
                cluster_facts.make_pod(probe_pod(job), cluster.namespace)
            else:
                cluster.create(job)
            return _wait(cluster, name, seconds=seconds, log=log)
        except NotAllowed:
            raise
        except ClusterError as error:
            return Probed("refused", error.problems[0])
        finally:
            with suppress(ClusterError):  # what could not be deleted ends by itself
                if as_pod:
                    cluster_facts.delete_pod(name, cluster.namespace)
                else:
                    cluster.delete(name)


def _wait(cluster: Cluster, name: str, *, seconds: float, log: Log) -> Probed:
    begun = told = time.monotonic()
    while True:
        pod = next(iter(cluster.pods(name)), None)
        if pod is not None and is_over(PYTORCHJOB, pod):
            lines = list(cluster.follow_log(pod["metadata"]["name"], ended=lambda: True, only_new=False))
            return heard(lines, pod)
        early = None if pod is None else ended_early(pod)
        if early is not None:
            return early
        now = time.monotonic()
        if now - begun > seconds or (pod is None and now - begun > NO_POD_S):
            return still_waiting(pod, _warnings(name if pod is None else pod["metadata"]["name"], cluster.namespace))
        if now - told > TOLD_S:
            told = now
            log.info("waiting", job=name, detail=still_waiting(pod, []).detail or "no pod is there yet")
        time.sleep(TICK_S)


def _warnings(name: str, namespace: str) -> list[str]:
    with suppress(ClusterError):
        return cluster_facts.warnings_about(name, namespace)
    return []
