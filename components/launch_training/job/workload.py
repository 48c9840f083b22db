"""Kueue's Workload of a job -> where the job stands in its queue, in Kueue's own words, and whether
waiting can help.

Conditions as Kueue 0.19 writes them (kueue.x-k8s.io/v1beta2): QuotaReserved, Admitted, Evicted,
Preempted, Requeued. An answer after which nobody would admit a job may be wrong for a moment, so it
counts only when it holds; see QueueWatch.
"""

from dataclasses import dataclass
from typing import Any

from components.launch_training.job.kinds import PYTORCHJOB, JobKind
from components.launch_training.job.phases import Phase, is_finished, phase_of

Fields = dict[str, Any]
QUEUE_LABEL, JOB_UID_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/job-uid"
NO_WORKLOAD_S = 45.0
"""After which Kueue has made a Workload for every job that it manages."""
HOPELESS_S = 20.0
"""How long the answer that a new job will never be admitted must hold before it is believed: a
queue may be made in the same moment."""
FIXES = (
    (
        "doesn't exist",
        "name a LocalQueue of this namespace, or make one as in k8s/examples/kueue.yaml",
    ),
    (
        "unavailable in ClusterQueue",
        (
            "add this resource to the ClusterQueue's coveredResources, as k8s/examples/kueue.yaml "
            "has it"
        ),
    ),
    ("maximum capacity", "raise the ClusterQueue's nominalQuota, or ask for fewer nodes"),
    (
        "inactive",
        (
            "look why: kubectl describe clusterqueue; a stopPolicy holds it, or its flavor is not "
            "there"
        ),
    ),
)
"""What a message of Kueue's has in it -> what to do."""
PASSES_MESSAGE, PASSES_REASON = "insufficient unused quota", "WaitingForQuota"
"""What a message has in it, or its reason is, when other jobs' end is all that is waited for. One
message has the words of all flavors: of a job too large for one and waiting for another it says
`maximum capacity` too."""


@dataclass(frozen=True)
class Queueing:
    """What is known of a job's place in its queue."""

    workload: Fields | None = None
    """None when Kueue has made none, or it cannot be read."""
    unread: str = ""
    """Why Workloads cannot be read; empty while they can."""
    no_kueue: bool = False
    """Whether the cluster has no Kueue."""
    is_answered: bool = True
    """Whether the API server has said any of this."""


NOT_ASKED = Queueing(is_answered=False)
NOT_JUDGED = "PendingEvaluation"
"""Reason of a QuotaReserved condition that is there before Kueue has looked at the job (Kueue's
gate UnadmittedWorkloadsExplicitStatus)."""


def queue_of(job: Fields) -> str | None:
    return job["metadata"].get("labels", {}).get(QUEUE_LABEL)


def phase_in_queue(
    kind: JobKind,
    job: Fields,
    pods: list[Fields],
    queueing: Queueing,
    *,
    begun: bool,
    complete: bool,
) -> Phase:
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
        return Phase(
            "queued",
            f"{waits}; why it waits is not known: {queueing.unread}" if queueing.unread else waits,
        )
    conditions = _conditions(queueing.workload)
    evicted, reserved = conditions.get("Evicted", {}), conditions.get("QuotaReserved", {})
    if reserved.get("status") == "False":
        why = reserved.get("message", "")
    else:
        why = ""
    if evicted.get("status") == "True":
        return _evicted(evicted, why, requeued=_holds(conditions, "Requeued"))
    if _holds(conditions, "Admitted"):
        return Phase("admitted", f"by queue {queue}; the job is not resumed yet")
    if _holds(conditions, "QuotaReserved"):
        return Phase(
            "queued", f"queue {queue} has reserved its quota; admission checks are waited for"
        )
    return Phase("queued", f"queue {queue}: {why}" if why else waits)


def _evicted(evicted: Fields, why_waiting: str, *, requeued: bool) -> Phase:
    cause = evicted.get("message") or evicted.get("reason", "")
    if requeued:
        return Phase(
            "requeued", f"{why_waiting or 'waits to be admitted again'}; before that: {cause}"
        )
    if evicted.get("reason") == "Preempted":
        name = "preempted"
    else:
        name = "evicted"
    return Phase(name, f"{cause}; {why_waiting}" if why_waiting else cause)


def is_admitted(workload: Fields | None) -> bool:
    return workload is not None and _holds(_conditions(workload), "Admitted")


def is_judged(queueing: Queueing) -> bool:
    """Whether Kueue has said yes or no to the job."""
    if queueing.workload is None:
        return False
    reserved = _conditions(queueing.workload).get("QuotaReserved")
    return reserved is not None and reserved.get("reason") != NOT_JUDGED


@dataclass(frozen=True)
class Hopeless:
    """An answer after which, if it holds, nobody admits the job."""

    cause: str
    """The same while the answer is, whatever numbers its message has."""
    believed_after_s: float
    problem: str
    """Why, and what to do."""


def hopeless(kind: JobKind, queue: str, queueing: Queueing) -> Hopeless | None:
    """What the newest answer leaves no hope by; None while it leaves some. A job that was evicted
    had been admitted: it waits."""
    if queueing.unread or not queueing.is_answered:
        return None
    if queueing.no_kueue:
        problem = (
            "cluster.queue: this cluster has no Kueue, so nothing admits the job. Fix: install "
            "Kueue, or leave cluster.queue out"
        )
        return Hopeless("no Kueue", HOPELESS_S, problem)
    if queueing.workload is None:
        return Hopeless("no Workload", NO_WORKLOAD_S, _no_workload(kind, queue))
    conditions = _conditions(queueing.workload)
    reserved = conditions.get("QuotaReserved", {})
    if "Evicted" in conditions or reserved.get("status") != "False":
        return None
    message, reason = reserved.get("message", ""), reserved.get("reason", "")
    if PASSES_MESSAGE in message or reason == PASSES_REASON:
        return None
    cause, fix = next(((words, fix) for words, fix in FIXES if words in message), (reason, ""))
    if not fix and reason == "Inadmissible":
        fix = f"kubectl describe localqueue {queue}"
    if not fix:
        return None
    return Hopeless(
        cause,
        HOPELESS_S,
        f"cluster.queue: queue {queue} never admits the job: {message}. Fix: {fix}",
    )


class QueueWatch:
    """The answers that one job has had: since when, without a break, they leave no hope, and
    whether it ever had some."""

    def __init__(self, kind: JobKind, *, is_new: bool) -> None:
        self._kind = kind
        self._is_new = is_new
        """Whether no answer left the job any hope so far, as far as is known."""
        self._had_workload = False
        self._cause = ""
        self._since_s = 0.0

    def was_let_go(self) -> None:
        """The job is not suspended: something admitted it."""
        self._is_new, self._had_workload, self._cause = False, True, ""

    def why_never(self, queue: str, queueing: Queueing, *, now_s: float) -> str | None:
        """Why nobody will admit the suspended job, and what to do; None while it may be. `now_s`:
        by a clock that only goes forward.

        A queue may be held for a while, and Kueue itself be away: a job that is not new waits for
        its queue, and one that had a Workload waits for Kueue.
        """
        found = hopeless(self._kind, queue, queueing)
        self._remember(queueing, found, now_s)
        if queueing.workload is None:
            waits = self._had_workload
        else:
            waits = not self._is_new
        if found is None or waits or now_s - self._since_s < found.believed_after_s:
            return None
        return found.problem

    def _remember(self, queueing: Queueing, found: Hopeless | None, now_s: float) -> None:
        if found is None:
            cause = ""
        else:
            cause = found.cause
        if cause != self._cause:
            self._cause, self._since_s = cause, now_s
        self._had_workload |= queueing.workload is not None
        if found is None and is_judged(queueing):
            self._is_new = False


def _no_workload(kind: JobKind, queue: str) -> str:
    framework = f"{kind.group}/{kind.name.lower()}"
    if kind is PYTORCHJOB:
        left_out = "; Kueue 0.19 leaves it out unless asked"
    else:
        left_out = ""
    return (
        f"cluster.queue: Kueue made no Workload for the job within {NO_WORKLOAD_S:.0f} s, so queue "
        f"{queue} never admits it. Fix: list {framework} under integrations.frameworks of "
        f"ConfigMap kueue-manager-config{left_out}, look at the log of kueue-controller-manager, "
        "or leave cluster.queue out"
    )


def _conditions(workload: Fields) -> dict[str, Fields]:
    """By type, whether they hold or not."""
    return {each["type"]: each for each in workload.get("status", {}).get("conditions", [])}


def _holds(conditions: dict[str, Fields], kind: str) -> bool:
    return conditions.get(kind, {}).get("status") == "True"
