"""Whoever is stopped, whenever, leaves nothing running."""

import random
import time
from pathlib import Path

from components.launch_training.reap import reap_run
from components.shared.errors import Preempted
from components.shared.job.training_job import LEASE_ANNOTATION
from components.shared.step import step_log
from tests.cluster.cluster_run import NOTHING_STAYS_S, ClusterRun
from tests.cluster.conftest import TestNamespace, kubectl
from tests.support.command_line import hagane
from tests.support.s3_server import S3Server

SEED, TIMES = 20261125, 20
SHORTEST_S, LONGEST_S = 2.0, 8.0
"""From before the launcher can hear of a signal until its pod runs."""
QUICK = {"pod_patch": {"spec": {"terminationGracePeriodSeconds": 1}}}
ENDLESS = {"epochs": 1000}


def test_twenty_launchers_stopped_at_random_moments_leave_no_job_and_no_pod(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    run = ClusterRun(
        namespace, claim, s3, tmp_path, hardware={"num_nodes": 1}, cluster=QUICK, training=ENDLESS
    )
    moments, num_jobs = random.Random(SEED), 0
    for number in range(TIMES):
        moment = moments.uniform(SHORTEST_S, LONGEST_S)
        with run.launcher() as launcher:
            time.sleep(moment)
            launcher.process.terminate()
            exit_code = launcher.exit_code(NOTHING_STAYS_S)
            print(
                f"stopped {number + 1}: after {moment:.2f} s, exit code {exit_code}, phases "
                f"{[name for name, _ in launcher.phases]}"
            )
            assert exit_code in (Preempted.exit_code, -15), launcher.log[
                -3000:
            ]  # -15: before Python could listen for it
            num_jobs += '"event":"job_created"' in launcher.log
        assert namespace.jobs() == []
    assert num_jobs > 0  # on a slow machine none may get as far as a job, and nothing is tried
    run.wait_until_nothing_is_left()


PAUSES_MS = (0, 1, 3, 10, 50, 200)
"""Between two SIGTERMs: timeout(1) sends two within a few milliseconds, and so may whatever ends a
process group."""
TIMES_EACH = 10


def test_a_second_sigterm_does_not_keep_a_launcher_from_deleting_its_job(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    run = ClusterRun(
        namespace,
        claim,
        s3,
        tmp_path,
        hardware={"num_nodes": 1},
        cluster={"queue": "never", **QUICK},
    )
    for pause_ms in PAUSES_MS:
        exit_codes: list[int] = []
        for _ in range(TIMES_EACH):
            with run.launcher() as launcher:
                launcher.wait_for('"event":"job_created"')
                launcher.process.terminate()
                time.sleep(pause_ms / 1000)
                launcher.process.terminate()
                exit_codes.append(launcher.exit_code(NOTHING_STAYS_S))
                assert "is deleted" in launcher.log
                # -15: Python had given back its handlers, after all was said
                assert exit_codes[-1] in (Preempted.exit_code, -15), launcher.log[-3000:]
        print(
            f"two SIGTERMs {pause_ms} ms apart: exit codes {exit_codes}, {len(namespace.jobs())} "
            "jobs left"
        )
        assert namespace.jobs() == []


def test_the_end_of_a_pipeline_deletes_the_job_that_a_killed_launcher_left(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    run = ClusterRun(
        namespace, claim, s3, tmp_path, hardware={"num_nodes": 1}, cluster=QUICK, training=ENDLESS
    )
    with run.launcher() as launcher:
        launcher.wait_for('"event":"job_created"')
        launcher.process.kill()
    (job,) = namespace.jobs()
    with step_log("launch_training") as log:
        assert reap_run(run.uri, log) == [job["metadata"]["name"]]
        assert reap_run(run.uri, log) == []
    run.wait_until_nothing_is_left()


def test_the_reaper_deletes_what_nobody_followed_for_long_and_nothing_else(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    run = ClusterRun(
        namespace,
        claim,
        s3,
        tmp_path,
        hardware={"num_nodes": 1},
        cluster={"queue": "never", **QUICK},
    )
    with run.launcher() as launcher:
        launcher.wait_for('"event":"job_created"')
        launcher.process.kill()
    (job,) = namespace.jobs()

    def reap() -> str:
        done = hagane("reap", "--namespace", namespace.name, work=tmp_path)
        assert done.exit_code == 0, done.errors
        return done.output

    assert "deleted" not in reap()
    assert len(namespace.jobs()) == 1
    kubectl(
        "-n",
        namespace.name,
        "annotate",
        "--overwrite",
        "pytorchjob",
        job["metadata"]["name"],
        f"{LEASE_ANNOTATION}=2020-01-01T00:00:00Z",
    )
    assert f"deleted job {job['metadata']['name']}" in reap()
    run.wait_until_nothing_is_left()
