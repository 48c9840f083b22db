"""The probe of probe_job.py in the cluster: made, waited for, heard, and gone again however this
ends."""

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from components.launch_training.doctor.probe_job import (
    Probed,
    ended_early,
    has_run,
    heard,
    still_waiting,
)
from components.launch_training.job.phases import is_over
from components.launch_training.job.workload import NOT_ASKED, Queueing, is_judged
from components.launch_training.kubernetes_api import facts as cluster_facts
from components.launch_training.kubernetes_api.client import Cluster
from components.launch_training.kubernetes_api.facts import NotAllowed
from components.launch_training.kubernetes_api.workloads import poll_workload
from components.shared.errors import ClusterError
from components.shared.processes import left_by_signal
from components.shared.step import Log

Fields = dict[str, Any]
TICK_S = 0.5
NO_POD_S = 20.0
"""After which an operator that is running has made a job's pod, or the cluster has said why it
refuses it."""
REPORT_S = 10.0


def probe(cluster: Cluster, job: Fields, *, seconds: float, log: Log) -> Probed:
    """What the probe, a job or a pod, said. Nothing is left of it: Ctrl-C and SIGTERM delete it
    too."""
    name, as_pod = job["metadata"]["name"], job["kind"] == "Pod"
    by_hand = (
        f"kubectl -n {cluster.namespace} delete {'pod' if as_pod else cluster.kind.plural} {name}"
    )
    stop = left_by_signal(
        ending=f"doctor: {name} is being deleted",
        left=f"doctor: {name} may be left; it ends by itself, or: {by_hand}",
    )
    with stop:
        try:
            if as_pod:
                cluster_facts.make_pod(job, cluster.namespace)
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


def probe_queue(cluster: Cluster, job: Fields, *, seconds: float) -> Queueing:
    """What Kueue makes of a suspended job with a queue's label within `seconds`. Nothing is left of
    it.

    It is not answered where the API server was silent when it was asked last, and Kueue had not
    judged the job before.

    Raises:
        ClusterError: the job is refused, or somebody else deleted it.
    """
    name = job["metadata"]["name"]
    by_hand = cluster.deleted_by_hand(name)
    found = NOT_ASKED
    with left_by_signal(
        ending=f"doctor: {name} is being deleted", left=f"doctor: {name} may be left: {by_hand}"
    ):
        try:
            cluster.create(job)
            made = cluster.job(name)
            if made is None:
                raise ClusterError(f"cluster: job {name} is gone: someone else deleted it")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                answer = poll_workload(made, cluster.namespace, before=NOT_ASKED)
                if answer.is_answered:
                    found = answer
                else:
                    found = replace(found, is_answered=False)
                if found.no_kueue or found.unread or is_judged(found):
                    break
                time.sleep(TICK_S)
        finally:
            with suppress(ClusterError):
                cluster.delete(name)
    return found


def _wait(cluster: Cluster, name: str, *, seconds: float, log: Log) -> Probed:
    begun = reported = time.monotonic()
    while True:
        pod = next(iter(cluster.pods(name)), None)
        if pod is not None and (is_over(cluster.kind, pod) or has_run(cluster.kind, pod)):
            lines = list(
                cluster.follow_log(pod["metadata"]["name"], ended=lambda: True, only_new=False)
            )
            return heard(cluster.kind, lines, pod)
        if pod is None:
            early = None
        else:
            early = ended_early(cluster.kind, pod)
        if early is not None:
            return early
        now = time.monotonic()
        if now - begun > seconds or (pod is None and now - begun > NO_POD_S):
            if pod is None:
                names = cluster.kind.makers(name)
            else:
                names = (pod["metadata"]["name"],)
            return still_waiting(
                pod, [each for made in names for each in _warnings(made, cluster.namespace)]
            )
        if now - reported > REPORT_S:
            reported = now
            log.info(
                "waiting", job=name, detail=still_waiting(pod, []).detail or "no pod is there yet"
            )
        time.sleep(TICK_S)


def _warnings(name: str, namespace: str) -> list[str]:
    with suppress(ClusterError):
        return cluster_facts.warnings_about(name, namespace)
    return []
