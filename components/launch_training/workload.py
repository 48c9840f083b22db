"""Kueue's Workload of a job -> where the job stands in its queue, in Kueue's own words, and whether waiting can help.

Conditions as Kueue 0.19 writes them (kueue.x-k8s.io/v1beta2): QuotaReserved, Admitted, Evicted, Preempted, Requeued.
"""

from dataclasses import dataclass
from typing import Any

from components.launch_training.kinds import PYTORCHJOB, JobKind
from components.launch_training.phases import Phase, is_finished, phase_of

Fields = dict[str, Any]
QUEUE_LABEL, JOB_UID_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/job-uid"
NO_WORKLOAD_S = 45.0
"""After which Kueue has made a Workload for every job that it manages."""
HOPELESS_S = 20.0
"""How long a new job may be told that it will never be admitted before that is believed: a queue may be made in the same moment."""
FIXES = (
    ("doesn't exist", "name a LocalQueue of this namespace, or make one as in k8s/examples/kueue.yaml"),
    ("unavailable in ClusterQueue", "add this resource to the ClusterQueue's coveredResources, as k8s/examples/kueue.yaml has it"),
    ("maximum capacity", "raise the ClusterQueue's nominalQuota, or ask for fewer nodes"),
    ("inactive", "look why: kubectl describe clusterqueue; a stopPolicy holds it, or its flavor is not there"),
)
"""What a message of Kueue's has in it -> what to do."""
PASSES_MESSAGE, PASSES_REASON = "insufficient unused quota", "WaitingForQuota"
"""What a message has in it, or its reason is, when other jobs' end is all that is waited for. One message has the words of all flavors:
of a job too large for one and waiting for another it says `maximum capacity` too."""


@dataclass(frozen=True)
class Queueing:
    """What is known of a job's place in its queue."""

    workload: Fields | None = None
    """None when Kueue has made none, or it cannot be read."""
    unread: str = ""
    """Why Workloads cannot be read; empty while they can."""
    no_kueue: bool = False
    """Whether the cluster has no Kueue."""


NOT_ASKED = Queueing()


def queue_of(job: Fields) -> str | None:
    return job["metadata"].get("labels", {}).get(QUEUE_LABEL)


def phase_in_queue(kind: JobKind, job: Fields, pods: list[Fields], queueing: Queueing, *, begun: bool, complete: bool) -> Phase:
    """As phase_of, with what Kueue says of a job that waits."""
    if kind.is_suspended(job) and not is_finished(kind, job):
        return queue_phase(queue_of(job), queueing)
    admitted = is_admitted(queueing.workload)
    return phase_of(kind, job, pods, begun=begun, complete=complete, admitted=admitted)


def queue_phase(queue: str | None, queueing: Queueing) -> Phase:
    """Where a suspended job stands."""
    if queue is None:
        return Phase("queued", "suspended")
    waits = f"suspended until queue {queue} admits it"
    if queueing.workload is None:
        return Phase("queued", f"{waits}; why it waits is not known: {queueing.unread}" if queueing.unread else waits)
    conditions = _conditions(queueing.workload)
    evicted, reserved = conditions.get("Evicted", {}), conditions.get("QuotaReserved", {})
    why = reserved.get("message", "") if reserved.get("status") == "False" else ""
    if evicted.get("status") == "True":
        return _evicted(evicted, why, requeued=_holds(conditions, "Requeued"))
    if _holds(conditions, "Admitted"):
        return Phase("admitted", f"by queue {queue}; the job is not resumed yet")
    if _holds(conditions, "QuotaReserved"):
        return Phase("queued", f"queue {queue} has reserved its quota; admission checks are waited for")
    return Phase("queued", f"queue {queue}: {why}" if why else waits)


def _evicted(evicted: Fields, why_waiting: str, *, requeued: bool) -> Phase:
    cause = evicted.get("message") or evicted.get("reason", "")
    if requeued:
        return Phase("requeued", f"{why_waiting or 'waits to be admitted again'}; before that: {cause}")
    name = "preempted" if evicted.get("reason") == "Preempted" else "evicted"
    return Phase(name, f"{cause}; {why_waiting}" if why_waiting else cause)


def is_admitted(workload: Fields | None) -> bool:
    return workload is not None and _holds(_conditions(workload), "Admitted")


def is_judged(queueing: Queueing) -> bool:
    """Whether Kueue has said yes or no to the job."""
    return queueing.workload is not None and "QuotaReserved" in _conditions(queueing.workload)


def why_never(kind: JobKind, queue: str, queueing: Queueing, *, waited_s: float, is_new: bool) -> str | None:
    """Why nobody will admit a job that has been suspended for `waited_s`, and what to do; None while it may be. Of a job that is not
    new, or that was admitted before, a queue may be held for a while: it waits."""
    if queueing.unread:
        return None
    if queueing.no_kueue and waited_s > HOPELESS_S:
        return "cluster.queue: this cluster has no Kueue, so nothing admits the job. Fix: install Kueue, or leave cluster.queue out"
    if queueing.workload is None:
        return _no_workload(kind, queue) if waited_s > NO_WORKLOAD_S else None
    conditions = _conditions(queueing.workload)
    reserved = conditions.get("QuotaReserved", {})
    if not is_new or "Evicted" in conditions or reserved.get("status") != "False" or waited_s < HOPELESS_S:
        return None
    message = reserved.get("message", "")
    if PASSES_MESSAGE in message or reserved.get("reason") == PASSES_REASON:
        return None
    fix = next((fix for words, fix in FIXES if words in message), None)
    if fix is None and reserved.get("reason") == "Inadmissible":
        fix = f"kubectl describe localqueue {queue}"
    return None if fix is None else f"cluster.queue: queue {queue} never admits the job: {message}. Fix: {fix}"


def _no_workload(kind: JobKind, queue: str) -> str:
    framework = f"{kind.group}/{kind.name.lower()}"
    left_out = "; Kueue 0.19 leaves it out unless asked" if kind is PYTORCHJOB else ""
    return (
        f"cluster.queue: Kueue made no Workload for the job within {NO_WORKLOAD_S:.0f} s, so queue {queue} never admits it. Fix: list "
        f"{framework} under integrations.frameworks of ConfigMap kueue-manager-config{left_out}, look at the log of "
        "kueue-controller-manager, or leave cluster.queue out"
    )


def _conditions(workload: Fields) -> dict[str, Fields]:
    """By type, whether they hold or not."""
    return {each["type"]: each for each in workload.get("status", {}).get("conditions", [])}


def _holds(conditions: dict[str, Fields], kind: str) -> bool:
    return conditions.get(kind, {}).get("status") == "True"
