"""`hagane reap`, against an API server that keeps jobs; on a real one: tests/cluster/test_cancel.py."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.shared.job.training_job import LEASE_ANNOTATION, RUN_ANNOTATION
from components.shared.spec.file import spec_from_parameter
from components.shared.step import claim_run
from tests.support.command_line import Finished, hagane
from tests.unit.launch_training.api_stand_in import ApiStandIn, JobKeeper, kubeconfig, running


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[JobKeeper]:
    keeper = JobKeeper()
    for name, minutes in (("followed", 1), ("left", 20)):
        annotations = {LEASE_ANNOTATION: (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(), RUN_ANNOTATION: f"{tmp_path}/{name}"}
        metadata = {"name": name, "creationTimestamp": "2026-11-01T00:00:00Z", "annotations": annotations}
        keeper.jobs[name] = {"metadata": metadata, "spec": {"runPolicy": {}}, "status": {}}
    with running(ApiStandIn(keeper.answer, keeper.change)) as server:
        kubeconfig(server, tmp_path)
        yield keeper


def reap(folder: Path, *arguments: str) -> Finished:
    return hagane("reap", *arguments, work=folder, env={"KUBECONFIG": str(folder / "kubeconfig")})


def test_a_job_that_nobody_follows_is_listed_and_then_deleted(keeper: JobKeeper, tmp_path: Path) -> None:
    listed = reap(tmp_path, "--dry-run")
    assert listed.output.startswith(f"would delete job left of {tmp_path}/left: nobody has followed it since ")
    assert listed.output.endswith("\n2 jobs of hagane in namespace runs\n")
    assert set(keeper.jobs) == {"followed", "left"}
    assert reap(tmp_path).output.startswith("deleted job left of ")
    assert set(keeper.jobs) == {"followed"}


def test_the_job_of_a_named_run_is_deleted_though_it_is_followed(keeper: JobKeeper, tmp_path: Path) -> None:
    tree = {"name": "followed", "store": str(tmp_path), "model": {"source": "m"}, "data": {"train": "d"}, "backend": "pytorchjob"}
    claim_run(spec_from_parameter(tree))
    assert reap(tmp_path, f"{tmp_path}/followed").output.startswith("deleted job followed of ")
    assert set(keeper.jobs) == {"left"}
    assert reap(tmp_path, f"{tmp_path}/followed").output.startswith("nothing deleted: none that is this one's to delete is at work")


def test_what_cannot_be_asked_is_one_line(keeper: JobKeeper, tmp_path: Path) -> None:
    for done, told in (
        (reap(tmp_path, f"{tmp_path}/nowhere"), "no run is here"),
        (reap(tmp_path, f"{tmp_path}/nowhere", "--dry-run"), "leave them out, or RUN"),
        (hagane("reap", work=tmp_path, env={"KUBECONFIG": str(tmp_path / "none")}), "backend: no cluster"),
    ):
        assert (done.exit_code, done.output, len(done.errors)) == (2, "", 1)
        assert told in done.errors[0]
    assert set(keeper.jobs) == {"followed", "left"}
