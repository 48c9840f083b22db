"""Two runs under one name: the second follows the first one's job and never ends it while the first
does.

An API server that keeps jobs stands in for a cluster, whose part is no more than that here: what is
asked is which jobs are left in it.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from kubernetes import client

from components.launch_training.backends import in_cluster
from components.launch_training.backends.in_cluster import run_in_cluster
from components.launch_training.reap import reap_run
from components.shared.documents.plan import Plan
from components.shared.documents.run_end import RunEnd, write_end
from components.shared.errors import Preempted
from components.shared.job.training_job import LEASE_ANNOTATION, RUN_ANNOTATION
from components.shared.log import set_up_log
from components.shared.spec.file import spec_from_parameter
from components.shared.spec.run_spec import RunSpec
from components.shared.step import claim_run
from components.shared.store.storage import open_store
from tests.unit.launch_training.api_stand_in import ApiStandIn, JobKeeper, kubeconfig, running

MANIFEST = Path(__file__).parents[3] / "golden/pytorchjob/cpu-two-nodes.yaml"
LOG = set_up_log("launch_training")
Fields = dict[str, Any]


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobKeeper]:
    monkeypatch.setattr(client.Configuration, "_default", None)
    keeper = JobKeeper()
    with running(ApiStandIn(keeper.answer, keeper.change)) as server:
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION",
            str(kubeconfig(server, tmp_path)),
        )
        yield keeper


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    tree = {
        "name": "r",
        "store": str(tmp_path / "s"),
        "model": {"source": "m"},
        "data": {"train": "d"},
        "backend": "pytorchjob",
    }
    spec = spec_from_parameter(tree)
    claim_run(spec)
    return spec


@pytest.fixture
def launch(
    keeper: JobKeeper, spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A launcher of a run of KFP that begins or finds the job and, once it follows it, gets
    SIGTERM or is killed. What it said last.

    `meanwhile`: what happens while it follows, before it ends.
    """

    def launch(
        kfp_run: str, *, killed: bool = False, meanwhile: Callable[[], object] = lambda: None
    ) -> str:
        class Follower:
            def __init__(self, *_: object, **__: object) -> None: ...

            def follow(self) -> None:
                meanwhile()
                raise (KeyError("killed") if killed else SystemExit(143))

            def store_open_logs(self) -> None:
                """Nothing: no pod has printed anything."""

        monkeypatch.setattr(in_cluster, "Follower", Follower)
        manifest = yaml.safe_load(MANIFEST.read_text())
        manifest["metadata"]["annotations"][RUN_ANNOTATION] = spec.run_uri
        with pytest.raises((Preempted, KeyError)) as ended:
            run_in_cluster(
                spec,
                manifest,
                cast("Plan", None),
                open_store(spec.run_uri),
                image="i",
                kfp_run=kfp_run,
                work=tmp_path,
                log=LOG,
            )
        return str(ended.value)

    return launch


def _was_not_followed_for(minutes: float, keeper: JobKeeper) -> None:
    (job,) = keeper.jobs.values()
    job["metadata"]["annotations"][LEASE_ANNOTATION] = (
        datetime.now(UTC) - timedelta(minutes=minutes)
    ).isoformat()


def test_a_second_pipeline_that_is_stopped_leaves_the_job_to_the_first(
    launch: Any, keeper: JobKeeper
) -> None:
    launch("first", killed=True)
    assert keeper.owners == ["first"]
    assert "is left running: another run of Kubeflow Pipelines began it" in launch("second")
    assert keeper.owners == ["first"]


def test_a_retry_of_the_same_run_still_owns_the_job_and_ends_it(
    launch: Any, keeper: JobKeeper
) -> None:
    launch("first", killed=True)
    launch("second")
    assert "is deleted" in launch("first")
    assert keeper.jobs == {}


def test_outside_kfp_a_launcher_deletes_its_own_job_and_one_that_an_earlier_launcher_left(
    launch: Any, keeper: JobKeeper
) -> None:
    assert "is deleted" in launch("")
    launch("", killed=True)
    assert keeper.owners == [None]
    assert "is deleted" in launch("")
    assert keeper.jobs == {}


@pytest.mark.parametrize(("first", "second"), [("", "kfp"), ("kfp", "")])
def test_a_job_that_is_followed_in_kfp_or_outside_belongs_to_the_other_only_once_it_is_left(
    first: str, second: str, launch: Any, keeper: JobKeeper
) -> None:
    launch(first, killed=True)
    assert "is left running" in launch(second)
    assert len(keeper.jobs) == 1
    _was_not_followed_for(3, keeper)
    assert "is deleted" in launch(second)
    assert keeper.jobs == {}


@pytest.mark.parametrize("taker", ["", "kfp"])
@pytest.mark.parametrize("is_new", [False, True])
def test_a_launcher_that_slept_leaves_the_job_that_another_follows_meanwhile(
    taker: str, is_new: bool, launch: Any, keeper: JobKeeper
) -> None:
    def take_over() -> None:
        _was_not_followed_for(3, keeper)
        if is_new:
            keeper.jobs.clear()
        launch(taker, killed=True)

    assert "is left running: another" in launch("", meanwhile=take_over)
    assert keeper.owners == [taker or None]


def test_a_job_that_its_run_lost_belongs_to_the_one_that_found_it(
    launch: Any, keeper: JobKeeper
) -> None:
    launch("first", killed=True)
    _was_not_followed_for(3, keeper)
    launch("second", killed=True)
    assert keeper.owners == ["second"]
    assert "is left running" in launch("first")
    assert "is deleted" in launch("second")


@pytest.mark.parametrize(
    ("owner", "ended_by", "only_own", "left"),
    [
        ("first", "first", False, 0),
        ("first", "second", False, 1),
        ("first", "second", True, 1),
        ("first", "first", True, 0),
        ("first", "", False, 0),
        ("", "second", False, 0),
        ("", "second", True, 1),
    ],
)
def test_the_end_of_a_pipeline_deletes_its_own_job_alone(
    owner: str,
    ended_by: str,
    only_own: bool,
    left: int,
    launch: Any,
    keeper: JobKeeper,
    spec: RunSpec,
) -> None:
    launch(owner, killed=True)
    reaped = reap_run(spec.run_uri, LOG, kfp_run=ended_by, only_own=only_own)
    assert (len(reaped), len(keeper.jobs)) == (1 - left, left)


def test_after_an_error_the_exit_task_has_the_job_and_without_one_it_is_deleted_at_once(
    launch: Any, keeper: JobKeeper, spec: RunSpec
) -> None:
    launch("first", killed=True)
    assert keeper.owners == ["first"]
    at = datetime.now(UTC)
    write_end(
        open_store(spec.run_uri),
        RunEnd(
            kfp_run="first", state="RUNNING", title="goes on", resumed_by="launch_training", at=at
        ),
    )
    launch("first", killed=True)
    assert keeper.jobs == {}
