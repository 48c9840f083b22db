"""`python -m components.launch_training.reap`: deletes jobs in the cluster that nobody follows any
more, or at once that of one run.

A launcher marks its job every half minute. One that was not marked for long, and is not over, has
lost it: the step was killed, or its node. A retry of the step would have found the job again by
then. Failed jobs, which the operator itself never removes, go when they were kept as long as their
spec says.
"""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from components.launch_training.ending.ownership import (
    LEAST_MINUTES,
    followed_at,
    is_anothers,
    is_own,
)
from components.launch_training.job.events import time_of
from components.launch_training.job.kinds import KINDS, JobKind
from components.launch_training.job.phases import is_finished
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.errors import NoCluster, SpecError
from components.shared.job.training_job import LEASE_LABELS, RUN_ANNOTATION
from components.shared.step import Log, open_run, step_log


def reasons_to_reap(
    kind: JobKind, jobs: list[dict[str, Any]], *, older_than: timedelta, now: datetime
) -> dict[str, str]:
    """Name of each job that is to go -> why."""
    found: dict[str, str] = {}
    for job in jobs:
        marked = followed_at(job)
        if is_finished(kind, job):
            kept = kind.kept_seconds(job)
            ended = max(time_of(each["lastTransitionTime"]) for each in job["status"]["conditions"])
            if kept is not None and now - ended > timedelta(seconds=kept):
                found[job["metadata"]["name"]] = f"is over since {ended:%Y-%m-%d %H:%M} UTC"
        elif now - marked > older_than:
            found[job["metadata"]["name"]] = (
                f"nobody has followed it since {marked:%Y-%m-%d %H:%M} UTC"
            )
    return found


def reap_run(run: str, log: Log, *, kfp_run: str = "", only_own: bool = False) -> list[str]:
    """No job of this run is running any more; returns the names of those that were. One that is
    over stays, to be looked at.

    With `kfp_run`, a job that another run of Kubeflow Pipelines began is left running; with
    `only_own`, one without an owner too. For the end of a pipeline, however it ended: where there
    is no such run, no cluster, or another backend, that is reported, and nothing is done.

    Raises:
        ClusterError: the cluster answers, and does not allow it.
        StoreError: the run's store does not answer.
    """
    try:
        return delete_jobs(run, log, kfp_run=kfp_run, only_own=only_own)
    except (SpecError, NoCluster) as error:
        return _nothing_to_reap(log, run, str(error))


def delete_jobs(run: str, log: Log, *, kfp_run: str = "", only_own: bool = False) -> list[str]:
    """As `reap_run`, for whoever names a run that must be there.

    Raises:
        SpecError: there is no such run. NoCluster: nor a cluster. ClusterError, StoreError: as
            reap_run.
    """
    _, spec = open_run(run)
    if spec.backend == "local":
        return _nothing_to_reap(log, run, "backend: local has no job in a cluster")
    kind = KINDS[spec.backend]
    cluster = Cluster(spec.cluster.namespace, kind)
    found = [
        job
        for job in cluster.jobs(LEASE_LABELS)
        if job["metadata"].get("annotations", {}).get(RUN_ANNOTATION) == spec.run_uri
    ]
    at_work = [job for job in found if not is_finished(kind, job)]
    ended = [
        job
        for job in at_work
        if (is_own(job, kfp_run) if only_own else not is_anothers(job, kfp_run))
    ]
    names = [job["metadata"]["name"] for job in ended]
    for job in at_work:
        if job not in ended:
            log.info(
                "left_running",
                job=job["metadata"]["name"],
                run=run,
                namespace=cluster.namespace,
                why="another pipeline's",
            )
    for name in names:
        cluster.delete(name)
        log.info("reaped", job=name, run=run, namespace=cluster.namespace, why="the run was to end")
    return names or _nothing_to_reap(
        log, run, f"none that is this one's to delete is running in namespace {cluster.namespace}"
    )


def _nothing_to_reap(log: Log, run: str, why: str) -> list[str]:
    log.info("nothing_to_reap", run=run, why=why)
    return []


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.launch_training.reap", description=__doc__
    )
    parser.add_argument(
        "--run", metavar="URI", help="delete the job of this run alone, at once, if it is running"
    )
    parser.add_argument(
        "--backend",
        choices=list(KINDS),
        default="pytorchjob",
        help="the kind of job to look at; pytorchjob",
    )
    parser.add_argument("--namespace", help="without it, the pod's own or the kubeconfig's")
    parser.add_argument(
        "--older-than",
        type=float,
        default=15,
        metavar="MINUTES",
        help="not followed for so long; 15, at least 2",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    asked = parser.parse_args()
    with step_log("launch_training") as log:
        if asked.run is not None:
            delete_jobs(asked.run, log)
            return
        if asked.older_than < LEAST_MINUTES:
            raise SpecError(
                f"--older-than: got {asked.older_than:g}, must be at least {LEAST_MINUTES:g}: "
                "launchers mark twice a minute"
            )
        kind = KINDS[asked.backend]
        cluster = Cluster(asked.namespace, kind)
        jobs = cluster.jobs(LEASE_LABELS)
        runs = {
            job["metadata"]["name"]: job["metadata"].get("annotations", {}).get(RUN_ANNOTATION)
            for job in jobs
        }
        for name, why in reasons_to_reap(
            kind, jobs, older_than=timedelta(minutes=asked.older_than), now=datetime.now(UTC)
        ).items():
            if not asked.dry_run:
                cluster.delete(name)
            log.info("would_reap" if asked.dry_run else "reaped", job=name, run=runs[name], why=why)
        log.info("looked_at", jobs=len(jobs), namespace=cluster.namespace)


if __name__ == "__main__":
    main()
