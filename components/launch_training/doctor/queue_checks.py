"""Kueue's objects of a queue and a job's pods -> whether the queue could ever admit them."""

from decimal import Decimal
from typing import Any

from components.launch_training.job.kinds import JobKind
from components.launch_training.job.node_capacity import amounts
from components.launch_training.job.workload import Queueing, hopeless
from components.shared.documents.findings import Finding

Fields = dict[str, Any]
DEFAULT_QUEUE = "default"
"""Kueue puts jobs without a queue into the LocalQueue of this name, where a namespace has one."""


def default_queue_finding(namespace: str) -> Finding:
    return Finding(
        check="Kueue queue",
        state="warning",
        found=(
            f"the spec names no queue, but namespace {namespace} has a LocalQueue "
            f"{DEFAULT_QUEUE}: Kueue puts the job into it, suspended"
        ),
        fix=(
            f"set cluster.queue: {DEFAULT_QUEUE}, so that hagane looks at it too, or delete that "
            "LocalQueue"
        ),
    )


def quota_finding(
    name: str, queue: Fields | None, needs: dict[str, Decimal], num_pods: int, quantities: Any
) -> Finding:
    """The ClusterQueue's quota against what all pods ask for. `quantities` reads Kubernetes'
    amounts."""
    check = "queue's quota"
    if queue is None:
        return Finding(
            check=check,
            state="failed",
            found=f"no ClusterQueue {name}",
            fix="make one as in k8s/examples/kueue.yaml",
        )
    stopped = queue["spec"].get("stopPolicy", "None")
    if stopped != "None":
        found = f"ClusterQueue {name} is held (stopPolicy {stopped}), so it admits nothing"
        return Finding(check=check, state="failed", found=found, fix="set its stopPolicy to None")
    covered = {
        each
        for group in queue["spec"].get("resourceGroups", [])
        for each in group["coveredResources"]
    }
    uncovered = sorted(needs.keys() - covered)
    if uncovered:
        found = (
            f"ClusterQueue {name} does not cover {', '.join(uncovered)}, which pods ask for: it "
            "admits none of them"
        )
        fix = "add them to its coveredResources, as k8s/examples/kueue.yaml has it"
        return Finding(check=check, state="failed", found=found, fix=fix)
    largest = _largest(queue, quantities)
    short = [
        each for each in sorted(needs) if num_pods * needs[each] > largest.get(each, Decimal(0))
    ]
    if short:
        wanted = {each: num_pods * needs[each] for each in short}
        has = {each: largest.get(each, Decimal(0)) for each in short}
        asked = f"{amounts(wanted)}, of {amounts(has)}"
        fix = "raise its nominalQuota or borrowing, or ask for fewer nodes"
        if queue["spec"].get("cohortName") or queue["spec"].get("cohort"):
            state = "warning"
        else:
            state = "failed"
        return Finding(
            check=check,
            state=state,
            found=f"ClusterQueue {name} is too small for the job: {asked}",
            fix=fix,
        )
    return Finding(
        check=check,
        state="ok",
        found=f"ClusterQueue {name} covers {', '.join(sorted(needs))}, and is large enough",
    )


def _largest(queue: Fields, quantities: Any) -> dict[str, Decimal]:
    """Of each resource, the largest quota of one flavor, what may be borrowed included."""
    found: dict[str, Decimal] = {}
    for group in queue["spec"].get("resourceGroups", []):
        for flavor in group["flavors"]:
            for each in flavor["resources"]:
                amounts = quantities(
                    {
                        key: each[key]
                        for key in ("nominalQuota", "borrowingLimit")
                        if each.get(key) is not None
                    }
                )
                found[each["name"]] = max(
                    found.get(each["name"], Decimal(0)), sum(amounts.values(), Decimal(0))
                )
    return found


def effect_finding(kind: JobKind, queue: str, found: Queueing, *, waited_s: float) -> Finding:
    """Whether Kueue looks at this kind of job: it has made a Workload for one that was suspended in
    the queue."""
    check = "queue's effect"
    if found.unread:
        return Finding(
            check=check,
            state="skipped",
            found=f"a suspended {kind.name} was made, but {found.unread}",
        )
    if not found.is_answered:
        silent = (
            f"a suspended {kind.name} was made, but the API server did not answer within "
            f"{waited_s:.0f} s whether Kueue took it up"
        )
        return Finding(
            check=check,
            state="skipped",
            found=silent,
            fix="run doctor again when the API server answers",
        )
    if found.workload is None and not found.no_kueue:
        waited = f"Kueue made no Workload for a {kind.name} within {waited_s:.0f} s"
        framework = f"{kind.group}/{kind.name.lower()}"
        fix = (
            f"list {framework} under integrations.frameworks of ConfigMap kueue-manager-config, or "
            "see that Kueue runs"
        )
        return Finding(check=check, state="failed", found=waited, fix=fix)
    answer = hopeless(kind, queue, found)
    if answer is not None:
        words, _, fix = answer.problem.removeprefix("cluster.queue: ").partition(". Fix: ")
        return Finding(check=check, state="failed", found=words, fix=fix)
    return Finding(
        check=check, state="ok", found=f"Kueue makes a Workload for a {kind.name} in queue {queue}"
    )
