"""`hagane runs ID --cancel` while the run trains in a real cluster: when it returns, no job is left."""

import random
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster_run import ClusterRun
from tests.cluster.conftest import TestNamespace
from tests.cluster.kfp_run import KfpRun
from tests.cluster.test_cancel import ENDLESS
from tests.support.command_line import hagane
from tests.support.kfp import kfp_server
from tests.support.s3_server import S3Server

SEED = 20261130
LONGEST_S = 4.0
"""Between the first step of a training and its cancellation."""
PODS = "training.kubeflow.org/job-name"


def test_runs_cancelled_in_training_leave_no_job(
    namespace: TestNamespace,
    claim: dict[str, str],
    s3: S3Server,
    tmp_path: Path,
    store_env: None,
    pytestconfig: pytest.Config,
) -> None:
    """`--cancellations COUNT`: how many; 20 take 20 minutes."""
    run = ClusterRun(namespace, claim, s3, tmp_path, hardware={"num_nodes": 1}, training=ENDLESS)
    moments = random.Random(SEED)
    num_runs: Any = pytestconfig.getoption("--cancellations")
    seconds: list[float] = []
    seconds_of_pods: list[float] = []
    with kfp_server() as server:
        for _ in range(num_runs):
            kfp_run = KfpRun(server, run)
            with kfp_run.training() as launcher:
                launcher.wait_for('"event":"progress"')
                time.sleep(moments.uniform(0.0, LONGEST_S))
                begun = time.monotonic()
                done = hagane("runs", kfp_run.id, "--cancel", "--endpoint", server.endpoint, work=tmp_path)
                seconds.append(time.monotonic() - begun)
                jobs, num_pods = namespace.jobs(), len(namespace.pods(PODS))
            assert done.exit_code == 0, [done.errors, kfp_run.end_log]
            assert done.output.splitlines()[-1].endswith("s: no training job of it is left")
            assert jobs == []
            run.wait_until_nothing_is_left()
            seconds_of_pods.append(time.monotonic() - begun)
            print(
                f"cancelled {len(seconds)}: returned after {seconds[-1]:.1f} s, launcher's exit code {launcher.process.returncode}, "
                f"{len(jobs)} jobs and {num_pods} pods left; no pod after {seconds_of_pods[-1]:.1f} s",
                flush=True,
            )
    for what, each in (("the command returned", seconds), ("no pod was left", seconds_of_pods)):
        print(f"{len(each)} times, seconds until {what}: median {statistics.median(each):.1f}, max {max(each):.1f}")
