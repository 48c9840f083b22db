"""Events of a namespace -> what the cluster complains of about one job: its own, those of what it
makes, and its pods'.

Both kinds of events come through the API's core group: those of events.k8s.io have `eventTime` and
`series` where older ones have `lastTimestamp`, which is null in them.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from components.launch_training.job.kinds import JobKind

Fields = dict[str, Any]
RANDOM_POD = re.compile(r'(pods? "?[a-z0-9.-]+-)[a-z0-9]{5}("?)')
"""A pod that was refused: each retry has another name."""
LONG_VALUE = re.compile(r"(Invalid value: )[\[{].{60,}?(: [a-z ]+$|$)")
"""A whole object within a webhook's denial; what is wrong with it stands behind it."""
MESSAGE_CHARACTERS = 400
REFUSED_S = 30.0
"""How long a job may have no pod while what it is made of is refused, before that is final: a
controller tries again within seconds."""
REFUSED = {"TrainJobResourcesCreationFailed", "JobCreationFailed"}
"""Reasons of events: what stands between a job and its pods cannot be made."""
PODS_REFUSED = {"FailedCreate", "FailedCreatePod"}
NO_WAITING_HELPS = re.compile(
    r"violates PodSecurity|serviceaccount .*not found|Required value|Invalid value|admission "
    r"webhook"
)
"""In a message about pods that are refused."""
WAITING_HELPS = re.compile(
    r"exceeded quota|failed calling webhook|failed to call webhook|connection refused|connection "
    r"reset|timed out|Timeout: |(i/o|handshake|requested) timeout|deadline exceeded|time "
    r"allotted|object has been modified|[Tt]oo [Mm]any [Rr]equests|currently unable to "
    r"handle|etcdserver"
)
"""In a message about anything that is refused: a full quota, a webhook or an API server that is
away for a moment, two writers at once. A webhook that answered, and denied it, is none of these."""
NO_ACCOUNT = (
    "kubectl apply -k k8s/overlays/<yours>; set cluster.namespace if the account is in another "
    "namespace, or cluster.service_account if it has another name"
)
REFUSED_FIXES = (
    ("jobsets.jobset.x-k8s.io", "install JobSet, which Trainer needs, or see that it runs"),
    ("no matches for kind", "install JobSet, which Trainer needs, or see that it runs"),
    (
        "image: Required value",
        (
            "cluster.pod_patch names a container that the job has not; name the job's own, or "
            "give it an image"
        ),
    ),
    ("is too long", "give the run a shorter name"),
    (
        "PodSecurity",
        (
            "run in a namespace whose PodSecurity level allows these pods, or change them by "
            "cluster.pod_patch"
        ),
    ),
    ("serviceaccount", NO_ACCOUNT),
    (
        "vjobset.kb.io",
        "see the message; cluster.runtime: hagane (k8s/overlays/trainjob) is made for queues",
    ),
)
"""What a message has in it -> what to do."""
LIMITS = {
    "BackoffLimitExceeded": "the Job's backoffLimit ended it",
    "DeadlineExceeded": "activeDeadlineSeconds (cluster.run_timeout_hours) ended it",
    "PodFailurePolicy": "the runtime's podFailurePolicy ended it",
}
"""Reason of an event or condition -> which limit that is."""


def time_of(stamp: str) -> datetime:
    """A time stamp of Kubernetes, with Z or an offset."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).astimezone(UTC)


def event_time(event: Fields) -> datetime:
    """When the event was last seen."""
    series = event.get("series") or {}
    stamps = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("firstTimestamp"),
        event["metadata"].get("creationTimestamp"),
    )
    found = next((each for each in stamps if each), None)
    if found is None:
        return datetime.min.replace(tzinfo=UTC)
    return time_of(found)


def job_warnings(
    kind: JobKind, job: Fields, pods: Iterable[Fields], events: Iterable[Fields]
) -> list[Fields]:
    """Warnings about this job and what is its own, the oldest first.

    The job's uid and its pods' are known. Objects between them (JobSet, Job) have the job's name,
    as those of an earlier job of this name had: theirs are the events that came after the job was
    made, of objects that had none before.
    """
    made = time_of(job["metadata"]["creationTimestamp"]).replace(microsecond=0)
    uids = {job["metadata"]["uid"], *(pod["metadata"]["uid"] for pod in pods)}
    events = list(events)
    earlier = {_uid(each) for each in events if event_time(each) < made}
    kinds_with_uid = {kind.name, "Pod"}
    found: list[Fields] = []
    for each in events:
        is_known = _uid(each) in uids
        is_between = (
            each["involvedObject"].get("kind") not in kinds_with_uid and _uid(each) not in earlier
        )
        if each.get("type") == "Warning" and (is_known or is_between) and event_time(each) >= made:
            found.append(each)
    return sorted(found, key=event_time)


def _uid(event: Fields) -> str:
    return event["involvedObject"].get("uid", "")


def newest_message(warnings: list[Fields]) -> str:
    """The same for retries that differ in a pod's random name alone; empty without a warning."""
    if warnings:
        message = str(warnings[-1].get("message", ""))
    else:
        message = ""
    short = LONG_VALUE.sub(r"\1…\2", RANDOM_POD.sub(r"\1…\2", message))
    if len(short) <= MESSAGE_CHARACTERS:
        return short
    return f"{short[:MESSAGE_CHARACTERS]}…"


def why_no_pods(warnings: list[Fields], *, waited_s: float) -> str | None:
    """Why the pods of a job that has had none for `waited_s` will never be made, and what to do;
    None while they may be."""
    if not warnings or waited_s < REFUSED_S:
        return None
    reason, message = str(warnings[-1].get("reason", "")), newest_message(warnings)
    if WAITING_HELPS.search(message):
        return None
    is_refused = reason in REFUSED or (
        reason in PODS_REFUSED and NO_WAITING_HELPS.search(message) is not None
    )
    if not is_refused:
        return None
    fix = next((fix for words, fix in REFUSED_FIXES if words in message), "see the message")
    return f"cluster: the job's pods cannot be made: {message}. Fix: {fix}"


def limit_of(condition: Fields, warnings: list[Fields]) -> str:
    """Which limit ended the job, as its own condition or an event of its Job names it; empty when
    none did."""
    reasons = [
        str(condition.get("reason", "")),
        *(str(each.get("reason", "")) for each in reversed(warnings)),
    ]
    return next((LIMITS[reason] for reason in reasons if reason in LIMITS), "")
