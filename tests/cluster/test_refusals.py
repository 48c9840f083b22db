"""Jobs that cannot run are told apart, in a line that says why, within the time the spec gives them; nothing stays behind."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster_run import ClusterRun
from tests.cluster.conftest import TestNamespace
from tests.support.s3_server import S3Server

FAR = 1.0
"""Minutes of a deadline that the test must not meet."""


def patched(**container: Any) -> dict[str, Any]:
    """A cluster whose training containers have these fields."""
    return {"pod_patch": {"spec": {"containers": [{"name": "pytorch", **container}]}}}


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        (
            {"node_selector": {"nowhere": "yes"}, "queue_timeout_minutes": 0.5, "start_timeout_minutes": FAR},
            ["cluster.queue_timeout_minutes: not all pods had a node after 0.5 minutes: master-0: ", "didn't match"],
        ),
        (
            patched(resources={"limits": {"nvidia.com/gpu": "64"}}) | {"queue_timeout_minutes": 0.5, "start_timeout_minutes": FAR},
            ["cluster.queue_timeout_minutes: not all pods had a node after 0.5 minutes: master-0: ", "Insufficient nvidia.com/gpu"],
        ),
        (
            patched(image="localhost/hagane/nowhere:1") | {"queue_timeout_minutes": FAR, "start_timeout_minutes": 0.75},
            ["cluster.start_timeout_minutes: training had not begun 0.75 minutes", "pulling: ", "image localhost/hagane/nowhere:1: "],
        ),
        (
            patched(resources={"requests": {"memory": "150Mi"}, "limits": {"memory": "150Mi"}}),
            ["was killed for want of host memory (exit code 137): its limit is 150Mi; the plan counted ", "raise hardware.memory_margin"],
        ),
    ],
    ids=["no node", "64 GPUs", "no image", "too little memory"],
)
def test_a_job_that_cannot_run_ends_with_the_reason(
    wishes: dict[str, Any], told: list[str], namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    run = ClusterRun(namespace, claim, s3, tmp_path, cluster=wishes)
    with run.launcher() as launcher:
        assert launcher.exit_code(240) == 1, launcher.log[-6000:]
        lines = [line for line in launcher.log.splitlines() if line.startswith('{"event":"failed"')]
    for text in told:
        assert text in lines[-1]
    run.wait_until_nothing_is_left()


def test_a_field_that_no_pytorchjob_has_is_refused_before_anything_is_made(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    patch = {"spec": {"runPolicy": {"cleanPodPolcy": "All"}}}
    run = ClusterRun(namespace, claim, s3, tmp_path, cluster={"patch": patch})
    with run.launcher() as launcher:
        assert launcher.exit_code(60) == 2
        assert "cluster.patch: spec.runPolicy.cleanPodPolcy: this cluster's PyTorchJob has no such field" in launcher.log
    assert namespace.jobs() == []
