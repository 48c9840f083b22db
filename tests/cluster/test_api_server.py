"""An API server that is away while a job trains: the job goes on, and its launcher finds both again."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.api_outage import api_server_standing_still, wire_to_api
from tests.cluster.cluster_run import ClusterRun
from tests.cluster.conftest import TestNamespace
from tests.support.s3_server import S3Server

AWAY_S = 20.0


@pytest.mark.parametrize("how", ["refuses", "stands still"])
def test_training_and_its_launcher_outlast_an_api_server_that(
    how: str, namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path, store_env: None
) -> None:
    run = ClusterRun(namespace, claim, s3, tmp_path, training={"epochs": 12})
    with wire_to_api(tmp_path) as (wire, kubeconfig), run.launcher(kubeconfig) as launcher:
        launcher.wait_for('"event":"progress"')
        with ExitStack() as away:
            away.enter_context(wire.cut() if how == "refuses" else api_server_standing_still())
            time.sleep(AWAY_S)
            assert launcher.process.poll() is None, launcher.log[-3000:]
            before = launcher.log
        launcher.wait(lambda: launcher.log != before, 60)
        assert launcher.exit_code() == 0, launcher.log[-6000:]
    assert '"event":"restarted"' not in launcher.log
    assert run.store.read_bytes("checkpoints/manifest.json")
