"""The backends `pytorchjob` and `trainjob`: a job in a cluster, begun or found again, and never
left without someone to follow it."""

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.launch_training.backends.follower import Follower, stamp_of_now
from components.launch_training.backends.restarts import Restarts, Stalled
from components.launch_training.ending.ownership import Owner, end_job, is_left, this_owner
from components.launch_training.job.kinds import KINDS, JobKind
from components.launch_training.job.phases import is_finished
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.documents.plan import Plan
from components.shared.documents.run_end import was_resumed
from components.shared.errors import ClusterError, Preempted
from components.shared.job.training_job import (
    AFTER_GRACE_S,
    LEASE_ANNOTATION,
    OWN_RUNTIME_GRACE_S,
    TRAINING_ANNOTATION,
)
from components.shared.processes import left_by_signal
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log
from components.shared.store.patience import waits_no_more
from components.shared.store.storage import Store, open_store

Fields = dict[str, Any]
AFTER_KILL_S = 60
"""Seconds in which the kubelet removes a pod that was killed at the end of its grace."""
DRY_RUN = "-check"


def run_in_cluster(
    spec: RunSpec,
    manifest: Fields,
    plan: Plan,
    store: Store,
    *,
    image: str,
    kfp_run: str,
    work: Path,
    log: Log,
) -> None:
    """The job ran and succeeded. One that is there already and not over is followed instead of a
    new one.

    `kfp_run`: KFP's id of the run that follows it, empty outside KFP; see ownership.py.

    Raises:
        ClusterError: the cluster refuses the job, before anything was begun, or its queue will
            never admit it; no job is left.
        RunFailed: the job failed, or was given up. Preempted: SIGTERM came. In both the job is
            deleted, unless another run of KFP owns it or the API server does not let it be, which
            is reported.

    After any other error the job is left to the exit task, which deletes it. Where KFP's Retry
    continues a run, the exit task was before: then it is deleted here.
    """
    cluster = Cluster(spec.cluster.namespace, KINDS[spec.backend])
    name = manifest["metadata"]["name"]
    owner = this_owner(kfp_run)
    follower: Follower | None = None
    no_exit_task = was_resumed(store, kfp_run)
    with waits_no_more(when=True):
        for_people = open_store(
            store.uri
        )  # progress and logs: a launcher that waited for them would not mark its job
    stop = left_by_signal(
        ending=f"training: job {name} is being deleted",
        left=f"training: job {name} may still run: {cluster.deleted_by_hand(name)}",
    )
    with stop:
        try:
            restarts: Restarts | None = Restarts()
            while restarts is not None:
                attached = begin(
                    cluster,
                    as_sent(cluster.kind, manifest, image=image, owner=owner),
                    owner,
                    spec,
                    log,
                )
                follower = Follower(
                    cluster,
                    name,
                    plan,
                    spec.cluster,
                    for_people,
                    work,
                    log,
                    owner=owner,
                    attached=attached,
                    restarts=restarts,
                )
                restarts = followed(follower, cluster, name, log)
        except (SystemExit, KeyboardInterrupt):
            what = _stopped(cluster, name, owner, follower, log)
            raise Preempted(f"training: stopped; {what}") from None
        except Exception:
            if no_exit_task:
                end_job(cluster, name, owner, log)
            raise


def followed(follower: Follower, cluster: Cluster, name: str, log: Log) -> Restarts | None:
    """None when the job succeeded; the restarts so far, this one included, when it stalled, is
    deleted and may be made anew.

    Raises as `Follower.follow`, and Stalled when the job could not be deleted.
    """
    try:
        follower.follow()
    except Stalled as stalled:
        job = cluster.job(name)
        if job is not None and "deletionTimestamp" not in job["metadata"]:
            raise
        restarts = follower.restarts.and_one_more()
        log.warning("restarted", job=name, times=restarts.rounds, why=stalled.problems[0])
        return restarts
    return None


def _stopped(cluster: Cluster, name: str, owner: Owner, follower: Follower | None, log: Log) -> str:
    """The job is deleted and what its pods printed is stored, or that was given up. Returns what
    became of the job."""
    what = f"job {name} may still run: {cluster.deleted_by_hand(name)}"
    with suppress(KeyboardInterrupt):
        what = end_job(
            cluster, name, owner, log
        )  # first of all: whoever ends this process may kill it soon
        if follower is not None:
            follower.store_open_logs()
    return what


def as_sent(kind: JobKind, manifest: Fields, *, image: str, owner: Owner) -> Fields:
    """The manifest with the workers' image in it, marked as followed now, and with its owner."""
    whole = json.loads(json.dumps(manifest))
    kind.with_image(whole, image)
    whole["metadata"]["annotations"][LEASE_ANNOTATION] = stamp_of_now()
    whole["metadata"]["annotations"] |= {
        key: value for key, value in owner.marks.items() if value is not None
    }
    return whole


def begin(cluster: Cluster, manifest: Fields, owner: Owner, spec: RunSpec, log: Log) -> bool:
    """The job is there. Returns whether it was before; one that is over is removed first.

    Raises ClusterError when a job of this name works by another plan.
    """
    name, annotations = manifest["metadata"]["name"], manifest["metadata"]["annotations"]
    cluster.check_permissions()
    while True:
        found = cluster.job(name)
        if found is None:
            if cluster.pods(
                name
            ):  # of a job of this name that was just deleted: its pods have their grace
                _wait_until_gone(cluster, name, gone_after_s(spec))
            # Only here: a quota that the job itself fills would refuse even a dry run to a retried
            # launcher.
            cluster.check_fields(
                {**manifest, "metadata": {**manifest["metadata"], "name": checked_name(name)}},
                spec.cluster,
            )
            if cluster.create(manifest):
                log.info("job_created", job=name, namespace=cluster.namespace)
                return False
        elif "deletionTimestamp" in found["metadata"]:
            _wait_until_gone(cluster, name, gone_after_s(spec))
        elif is_finished(cluster.kind, found):
            log.info(
                "job_removed", job=name, why="it is over, and its checkpoints are not finished"
            )
            cluster.delete(name)
            _wait_until_gone(cluster, name, gone_after_s(spec))
        elif (
            found["metadata"].get("annotations", {}).get(TRAINING_ANNOTATION)
            != annotations[TRAINING_ANNOTATION]
        ):
            raise ClusterError(
                f"cluster: job {name} in namespace {cluster.namespace} trains this run by another "
                f"plan; wait for it, or delete it: {cluster.deleted_by_hand(name)}"
            )
        else:
            log.info(
                "job_found",
                job=name,
                namespace=cluster.namespace,
                why=_taken_over(cluster, found, owner),
            )
            return True


def checked_name(name: str) -> str:
    """Of the job in a dry run: as long as its own, which a webhook counts."""
    return f"{name[: -len(DRY_RUN)]}{DRY_RUN}"


def _taken_over(cluster: Cluster, job: Fields, owner: Owner) -> str:
    """A job whose owner lost it belongs from now on to the one that found it, so that this one's
    end is the job's too. Says whose it is."""
    why_not = owner.why_not(job)
    if why_not and not owner.takes_over_at_once(job) and not is_left(job, now=datetime.now(UTC)):
        return f"{why_not}; it is followed here too, and never deleted from here"
    cluster.annotate(job["metadata"]["name"], {**owner.marks, LEASE_ANNOTATION: stamp_of_now()})
    if why_not:
        return f"{why_not}, or did; it is this run's now"
    return "an earlier try began it"


def gone_after_s(spec: RunSpec) -> int:
    """Seconds after a job's deletion in which its pods may end: their grace, of a TrainJob its
    runtime's where that is longer, and more."""
    grace_s = spec.checkpoints.grace_seconds + AFTER_GRACE_S
    if spec.backend == "trainjob":
        grace_s = max(grace_s, OWN_RUNTIME_GRACE_S)
    return grace_s + AFTER_KILL_S


def _wait_until_gone(cluster: Cluster, name: str, gone_s: int) -> None:
    end = time.monotonic() + gone_s
    while cluster.job(name) is not None or cluster.pods(name):
        if time.monotonic() > end:
            raise ClusterError(
                f"cluster: job {name} was deleted, but its pods are still there after {gone_s} s; "
                "try again later"
            )
        time.sleep(1.0)
