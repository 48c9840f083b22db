from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.launch_training.job.kinds import PYTORCHJOB
from components.launch_training.reap import reap_run, reasons_to_reap
from components.shared.job.training_job import LEASE_ANNOTATION
from components.shared.spec.file import spec_from_parameter
from components.shared.step import claim_run, step_log

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def job(name: str, *, followed: timedelta, ended: timedelta | None = None) -> dict[str, Any]:
    conditions = [{"type": "Created", "status": "True", "lastTransitionTime": "2026-11-01T00:00:00Z"}]
    if ended is not None:
        conditions.append({"type": "Failed", "status": "True", "lastTransitionTime": f"{NOW - ended:%Y-%m-%dT%H:%M:%SZ}"})
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": "2026-11-01T00:00:00Z",
            "annotations": {LEASE_ANNOTATION: (NOW - followed).isoformat()},
        },
        "spec": {"runPolicy": {"ttlSecondsAfterFinished": 3600}},
        "status": {"conditions": conditions},
    }


def test_only_jobs_that_nobody_follows_and_old_finished_ones_are_to_go() -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    jobs = [
        job("followed", followed=minute),
        job("left", followed=16 * minute),
        job("just-failed", followed=30 * minute, ended=30 * minute),
        job("failed-long-ago", followed=2 * hour, ended=2 * hour),
    ]
    found = reasons_to_reap(PYTORCHJOB, jobs, older_than=15 * minute, now=NOW)
    assert found == {
        "left": "nobody has followed it since 2026-11-24 11:44 UTC",
        "failed-long-ago": "is over since 2026-11-24 10:00 UTC",
    }


def test_a_job_that_was_never_marked_counts_from_its_creation() -> None:
    unmarked = job("unmarked", followed=timedelta())
    del unmarked["metadata"]["annotations"]
    assert list(reasons_to_reap(PYTORCHJOB, [unmarked], older_than=timedelta(minutes=15), now=NOW)) == ["unmarked"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [(None, "no run is here"), ({"backend": "local"}, "has no job in a cluster"), ({"backend": "pytorchjob"}, "backend: no cluster")],
)
def test_a_run_without_a_job_is_told_and_nothing_else(
    fields: dict[str, Any] | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "no-kubeconfig"))
    uri = str(tmp_path / "t")
    if fields is not None:
        claim_run(spec_from_parameter({"name": "t", "store": str(tmp_path), "model": {"source": "m"}, "data": {"train": "d"}, **fields}))
    with step_log("launch_training") as log:
        assert reap_run(uri, log) == []
    printed = capsys.readouterr().out
    assert "event=nothing_to_reap" in printed
    assert told in printed
