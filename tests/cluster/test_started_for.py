"""A launcher as KFP starts it: for one spec, in a run whose lock KFP's run has."""

from pathlib import Path

import pytest

from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.step import open_run
from components.shared.store.layout import SPEC
from components.shared.store.series import Asked, note_asked
from components.shared.store.writer import claim_for_kfp, kfp_runs_at, kfp_writer
from tests.cluster.cluster_run import ClusterRun
from tests.cluster.conftest import TestNamespace
from tests.support.s3_server import S3Server

KFP_RUN = "kfp-run"
"""As ClusterRun.launch names it."""


@pytest.mark.usefixtures("store_env")
def test_a_launcher_shows_that_its_run_is_alive_and_leaves_the_lock_to_the_exit_task(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    run = ClusterRun(namespace, claim, s3, tmp_path, hardware={"num_nodes": 1})
    store, spec = open_run(run.uri)
    claim_for_kfp(store, kfp_writer(KFP_RUN, spec.digest))
    note_asked(store, Asked(series="tiny", fingerprint="", kfp_run=KFP_RUN))
    (claimed,) = store.list(".writer-0")
    run.launch()
    run.wait(lambda: next(iter(store.list(".writer-0"))).written > claimed.written)
    assert run.wait_end() == "Succeeded", run.log()[-6000:]
    assert kfp_runs_at(store, spec.digest) == [KFP_RUN]


@pytest.mark.usefixtures("store_env")
def test_a_launcher_of_another_spec_stops_with_the_owner_and_makes_no_job(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    run = ClusterRun(namespace, claim, s3, tmp_path, hardware={"num_nodes": 1})
    store, first = open_run(run.uri)
    second = parse_spec({**first.model_dump(mode="json"), "evaluation": {"questions": ["another"]}})
    claim_for_kfp(store, kfp_writer("another-run", second.digest))
    store.write_bytes(SPEC, spec_yaml(second).encode())
    run.launch(spec_digest=first.digest)
    assert run.wait_end() == "Failed"
    assert f"found a spec of digest {second.digest[:12]}, stored by run 'another-run' of Kubeflow Pipelines" in run.log()
    assert '"event":"job_created"' not in run.log()
    assert namespace.jobs() == []
