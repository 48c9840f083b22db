"""A job followed to its end, against an API server that a test leads through what no real one does
on demand; see api_stand_in.py."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from kubernetes import client

from components.launch_training.backends import follower, in_cluster
from components.launch_training.backends.follower import Follower
from components.launch_training.backends.in_cluster import begin, run_in_cluster
from components.launch_training.backends.restarts import MOST_FRUITLESS
from components.launch_training.ending.ownership import this_owner
from components.launch_training.job.phases import Fields
from components.launch_training.kubernetes_api import client as cluster_module
from components.launch_training.kubernetes_api import watch as cluster_watch
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.errors import ClusterError, Preempted, RunFailed
from components.shared.job.training_job import KFP_RUN_ANNOTATION
from components.shared.spec.cluster import ClusterSpec
from components.shared.spec.file import spec_from_parameter
from components.shared.step import Log
from components.shared.store.storage import LocalStore
from tests.support.made_plan import make_plan
from tests.unit.launch_training.api_stand_in import ApiStandIn, kubeconfig, running

SPEC = spec_from_parameter(
    {
        "name": "t",
        "store": "s",
        "backend": "pytorchjob",
        "model": {"source": "m"},
        "data": {"train": "d"},
    }
)
PLAN = make_plan(SPEC)
NOW = "2026-11-24T20:45:00Z"
RUNNING: Fields = {"running": {"startedAt": NOW}}


def event(name: str, **fields: object) -> str:
    reported = json.dumps({"event": name, "component": "train", **fields}, separators=(",", ":"))
    return f"{NOW[:-1]}.{time.monotonic_ns() % 10**9:09d}Z {reported}"


def pod(name: str, state: Fields, *, uid: str | None = None, at: str = NOW) -> Fields:
    kind, index = name.split("-")
    labels = {
        "training.kubeflow.org/replica-type": kind,
        "training.kubeflow.org/replica-index": index,
    }
    status = {
        "name": "pytorch",
        "image": "train:1",
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": state,
    }
    return {
        "metadata": {
            "name": f"j-{name}",
            "uid": uid or f"uid-{name}",
            "labels": labels,
            "creationTimestamp": at,
        },
        "spec": {"restartPolicy": "Never", "containers": [{"name": "pytorch"}]},
        "status": {
            "phase": "Failed" if "terminated" in state else "Running",
            "containerStatuses": [status],
        },
    }


def ended(exit_code: int) -> Fields:
    return {"terminated": {"exitCode": exit_code, "finishedAt": NOW, "reason": "Error"}}


class World:
    """A job of two pods, as the API server tells of it, and all that was done to it."""

    def __init__(self) -> None:
        metadata = {
            "name": "j",
            "uid": "job",
            "resourceVersion": "1",
            "creationTimestamp": NOW,
            "annotations": {"hagane.dev/training": "7"},
        }
        replicas = {"Master": {"replicas": 1}, "Worker": {"replicas": 1}}
        self.job: Fields | None = {
            "metadata": metadata,
            "spec": {"pytorchReplicaSpecs": replicas, "runPolicy": {}},
            "status": {},
        }
        self.pods = [pod("master-0", RUNNING), pod("worker-0", RUNNING)]
        self.logs: dict[str, Callable[[], Iterable[str]]] = {}
        self.done: list[str] = []
        self.refuses: set[str] = set()
        self.title: list[tuple[str, Fields]] = []
        self.hears: Callable[[str, Fields], None] = lambda *_: None
        self.makes: Callable[[], None] = lambda: None
        """What making a job does."""
        self.is_read, self.num_looks = threading.Event(), 0
        """Whether a log has begun to be read; how often the pods were listed."""

    def is_looked_at(self) -> None:
        """Whoever watches has heard of the pods as they are now."""
        end, seen = time.monotonic() + 30, self.num_looks
        while self.num_looks < seen + 2:
            assert time.monotonic() < end
            time.sleep(0.01)

    def ends(self, condition: str, message: str = "") -> None:
        assert self.job is not None
        self.job["status"] = {
            "conditions": [{"type": condition, "status": "True", "message": message}]
        }

    def answer(self, path: str, parameters: dict[str, str]) -> tuple[int, Fields | Iterable[str]]:
        if path.endswith("/log"):
            lines = self.logs.get(path.split("/")[-2])
            self.is_read.set()
            there = any(path.split("/")[-2] == each["metadata"]["name"] for each in self.pods)
            return (
                (404, {"message": "gone"}) if not there else (200, [] if lines is None else lines())
            )
        if path.endswith("/j"):
            return (404, {"message": "pytorchjobs"}) if self.job is None else (200, self.job)
        self.num_looks += path.endswith("/pods") and "watch" not in parameters
        items = {"pods": self.pods, "pytorchjobs": [self.job] if self.job else []}.get(
            path.rpartition("/")[2], []
        )
        return 200, [] if "watch" in parameters else {
            "kind": "List",
            "items": items,
            "metadata": {"resourceVersion": "5"},
        }

    def change(
        self, verb: str, path: str, parameters: dict[str, str], body: Fields
    ) -> tuple[int, Fields]:
        if path.endswith("selfsubjectaccessreviews"):
            return 200, {"spec": {}, "status": {"allowed": True}}
        self.done.append(verb)
        if verb == "DELETE" and verb not in self.refuses:
            assert not self.logs or self.is_read.wait(30)
            self.job, self.pods = None, []
        if verb == "POST" and path.endswith("/pytorchjobs") and "dryRun" not in parameters:
            self.makes()
        return (403, {"message": "no"}) if verb in self.refuses else (200, body)

    def info(self, name: str, **fields: Any) -> None:
        self.title.append((name, fields))
        self.hears(name, fields)

    warning = error = info

    @property
    def log(self) -> Log:
        return cast(Log, self)

    def phases(self) -> list[str]:
        return [fields["phase"] for name, fields in self.title if name == "phase"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for each in (cluster_module, cluster_watch):
        monkeypatch.setattr(each, "RELIST_PAUSE_S", 0.05)
    monkeypatch.setattr(follower, "TICK_S", 0.05)
    monkeypatch.setattr(follower, "LOGS_END_S", 3.0)
    monkeypatch.setattr(client.Configuration, "_default", None)
    world = World()
    with running(ApiStandIn(world.answer, world.change)) as server:
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION",
            str(kubeconfig(server, tmp_path)),
        )
        yield world


def follow(
    world: World, folder: Path, *, kfp_run: str = "", attached: bool = False, **spec: Any
) -> LocalStore:
    store = LocalStore(folder / "run")
    owner = this_owner(kfp_run)
    Follower(
        Cluster(),
        "j",
        PLAN,
        ClusterSpec(**spec),
        store,
        folder / "work",
        world.log,
        owner=owner,
        attached=attached,
    ).follow()
    return store


def stored(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "run" / "logs").glob("*.log")}


def open_log(*lines: str) -> Callable[[], Iterator[str]]:
    """One that goes on after its lines, until the test is over."""

    def read() -> Iterator[str]:
        yield from lines
        threading.Event().wait(8)

    return read


def test_a_job_that_only_uploads_its_last_checkpoints_does_not_stand_still(
    world: World, tmp_path: Path
) -> None:
    def lines() -> Iterator[str]:
        yield event("progress", done=1, total=1)
        for step in range(16):
            time.sleep(0.5)
            yield event("checkpoint", step=step)
        world.pods = [
            pod(name, {"terminated": {"exitCode": 0}}) for name in ("master-0", "worker-0")
        ]
        world.ends("Succeeded")

    world.logs["j-master-0"] = lines
    follow(world, tmp_path, stall_timeout_minutes=0.1)
    assert "running" in world.phases()


def test_after_a_failure_what_pods_still_at_work_have_printed_is_stored_too(
    world: World, tmp_path: Path
) -> None:
    world.logs = {"j-master-0": lambda: [f"{NOW} said"], "j-worker-0": open_log(f"{NOW} running")}

    def hears(name: str, fields: Fields) -> None:
        if name == "phase" and fields["phase"] == "starting":
            world.pods = [pod("master-0", ended(1)), world.pods[1]]
        if name == "pod_ended":
            world.ends("Failed", "1 Master failed")

    world.hears = hears
    with pytest.raises(
        RunFailed, match="training: master-0 ended with exit code 1; its last line: said"
    ):
        follow(world, tmp_path)
    assert stored(tmp_path) == {
        "j-master-0-uid-mast.log": "said\n",
        "j-worker-0-uid-work.log": "running\n",
    }


def test_when_a_job_is_given_up_its_pods_logs_end_with_them(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOGS_END_S", 60.0)
    world.logs["j-master-0"] = lambda: [f"{NOW} waits"]
    begun = time.monotonic()
    with pytest.raises(RunFailed, match=r"start_timeout_minutes.*(\n.*)*job j is deleted"):
        follow(world, tmp_path, start_timeout_minutes=0.005)
    assert time.monotonic() - begun < 40
    assert stored(tmp_path)["j-master-0-uid-mast.log"] == "waits\n"


@pytest.mark.parametrize(
    ("kfp_run", "left", "is_there"),
    [("first", "job j is deleted", False), ("second", "job j is left running", True)],
)
def test_a_deadline_ends_a_job_only_for_the_pipeline_that_owns_it(
    world: World, tmp_path: Path, kfp_run: str, left: str, is_there: bool
) -> None:
    assert world.job is not None
    world.job["metadata"]["annotations"][KFP_RUN_ANNOTATION] = "first"
    with pytest.raises(RunFailed, match=rf"start_timeout_minutes.*(\n.*)*{left}"):
        follow(world, tmp_path, kfp_run=kfp_run, start_timeout_minutes=0.005)
    assert (world.job is not None) is is_there


def test_a_cancelled_run_keeps_what_its_pods_had_printed(world: World, tmp_path: Path) -> None:
    world.logs["j-master-0"] = open_log(event("progress", done=1, total=9), f"{NOW} running")

    def hears(name: str, fields: Fields) -> None:
        if name == "progress":
            log = tmp_path / "work" / "logs" / "j-master-0-uid-mast.log"
            end = time.monotonic() + 30
            while "running" not in log.read_text():
                assert time.monotonic() < end
                time.sleep(0.01)
            raise SystemExit(143)

    world.hears = hears
    manifest: Any = {
        "metadata": {"name": "j", "annotations": {"hagane.dev/training": "7"}},
        "spec": {"pytorchReplicaSpecs": {}},
    }
    with pytest.raises(Preempted, match="job j is deleted"):
        run_in_cluster(
            SPEC,
            manifest,
            PLAN,
            LocalStore(tmp_path / "run"),
            image="train:1",
            kfp_run="",
            work=tmp_path / "work",
            log=world.log,
        )
    assert "DELETE" in world.done
    assert "running" in stored(tmp_path)["j-master-0-uid-mast.log"]


def test_pods_that_are_heard_of_before_the_job_was_let_go_are_its_own(
    world: World, tmp_path: Path
) -> None:
    assert world.job is not None
    policy = world.job["spec"]["runPolicy"]
    policy["suspend"] = True

    def hears(name: str, fields: Fields) -> None:
        if name == "phase" and fields["detail"].startswith("suspended"):
            policy["suspend"] = False
        if name == "phase" and fields["phase"] == "starting":
            world.pods = []
            world.ends("Succeeded")

    world.hears = hears
    follow(world, tmp_path, queue_timeout_minutes=0.5)
    assert ("restarted", {"job": "j", "times": 1}) not in world.title


def run_stalled(world: World, folder: Path, **cluster: Any) -> None:
    """Follows the job, in which nothing happens, as launch_training does."""
    spec = SPEC.model_copy(update={"cluster": ClusterSpec(stall_timeout_minutes=0.01, **cluster)})
    manifest: Any = {
        "metadata": {"name": "j", "annotations": {"hagane.dev/training": "7"}},
        "spec": {"pytorchReplicaSpecs": {}},
    }
    run_in_cluster(
        spec,
        manifest,
        PLAN,
        LocalStore(folder / "run"),
        image="train:1",
        kfp_run="",
        work=folder / "work",
        log=world.log,
    )


def test_a_training_that_stalls_is_made_anew_while_restarts_are_left(
    world: World, tmp_path: Path
) -> None:
    """A GPU or network that hangs raises no error in any process: only the missing steps show
    it."""
    job, pods = world.job, world.pods

    def makes() -> None:
        world.job, world.pods = (
            job,
            [pod(name, {"terminated": {"exitCode": 0}}) for name in ("master-0", "worker-0")],
        )
        world.ends("Succeeded")

    world.makes = makes
    run_stalled(world, tmp_path, max_restarts=1)
    (restarted,) = [fields for name, fields in world.title if name == "restarted"]
    assert restarted["times"] == 1
    assert restarted["why"].startswith(
        "cluster.stall_timeout_minutes: no step was made for 0.01 minutes"
    )
    assert [verb for verb in world.done if verb in ("DELETE", "POST")][:2] == ["DELETE", "POST"]
    assert pods is not world.pods


@pytest.mark.parametrize(("max_restarts", "num_jobs"), [(0, 0), (1, 1), (99, MOST_FRUITLESS)])
def test_a_training_that_stalls_each_time_is_given_up(
    world: World, tmp_path: Path, max_restarts: int, num_jobs: int
) -> None:
    job, pods, made = world.job, world.pods, []

    def makes() -> None:
        """The new job's processes say that training begins, and no more."""
        made.append(1)
        world.job, world.pods = job, pods
        world.logs["j-master-0"] = lambda: [event("held_out", epoch=0, step=0, loss=1.0)]

    world.makes = makes
    with pytest.raises(RunFailed, match=r"no step was made for 0\.01 minutes"):
        run_stalled(world, tmp_path, max_restarts=max_restarts)
    assert len(made) == num_jobs
    assert world.job is None


def restart_for_ever(world: World) -> None:
    """Whenever all pods run, the worker is killed, and another takes its place."""

    def hears(name: str, fields: Fields) -> None:
        if name == "phase" and fields["detail"] == "all pods run; the processes meet":
            world.pods[1] = pod("worker-0", ended(137), uid=world.pods[1]["metadata"]["uid"])
        if name == "phase" and fields["detail"] == "worker-0 has ended":
            world.pods[1] = pod("worker-0", RUNNING, uid=f"{len(world.title)}-worker")

    world.hears = hears


def test_a_pod_that_failed_and_was_replaced_before_anybody_looked_is_reported_too(
    world: World, tmp_path: Path
) -> None:
    def hears(name: str, fields: Fields) -> None:
        """Holds the follower up, while the cluster goes on."""
        if name == "phase" and fields["phase"] == "starting":
            worker = world.pods[1]
            for world.pods[1] in (
                pod("worker-0", ended(137), uid=worker["metadata"]["uid"]),
                pod("worker-0", RUNNING, uid="second"),
            ):
                world.is_looked_at()
            world.ends("Succeeded")

    world.hears = hears
    follow(world, tmp_path)
    assert ("pod_ended", {"pod": "worker-0", "exit_code": 137, "reason": "Error"}) in world.title
    assert ("restarted", {"job": "j", "times": 1}) in world.title


@pytest.mark.parametrize(
    ("max_restarts", "reported"),
    [(1, "anew 2 times in all (cluster.max_restarts)"), (99, "anew 4 times without a step made")],
)
def test_a_limit_of_restarts_is_reported_beside_the_last_pods_end(
    world: World, tmp_path: Path, max_restarts: int, reported: str
) -> None:
    restart_for_ever(world)
    with pytest.raises(RunFailed) as caught:
        follow(world, tmp_path, max_restarts=max_restarts)
    killed, limit, left = caught.value.problems
    assert killed.startswith("training: worker-0 was killed by signal 9")
    assert limit == f"training: the pods were started {reported}"
    assert left.startswith("job j is deleted")


def test_the_operators_own_deadline_is_reported_though_a_pod_had_ended_before(
    world: World, tmp_path: Path
) -> None:
    restart_for_ever(world)
    once = world.hears

    def hears(name: str, fields: Fields) -> None:
        if name == "restarted":
            world.ends(
                "Failed", "j has failed because it was active longer than specified deadline"
            )
        elif name == "phase":
            once(name, fields)

    world.hears = hears
    with pytest.raises(
        RunFailed, match="training: job j failed: j has failed because it was active longer"
    ):
        follow(world, tmp_path)


def test_why_a_job_was_given_up_is_reported_though_it_cannot_be_deleted(
    world: World, tmp_path: Path
) -> None:
    world.refuses.add("DELETE")
    with pytest.raises(RunFailed) as caught:
        follow(world, tmp_path, start_timeout_minutes=0.005)
    assert caught.value.exit_code == 1
    why, left = caught.value.problems
    assert why.startswith("cluster.start_timeout_minutes")
    assert "job j may still be running" in left


def test_of_a_job_that_someone_deleted_nothing_is_deleted_again(
    world: World, tmp_path: Path
) -> None:
    def hears(name: str, fields: Fields) -> None:
        if name == "phase" and fields["phase"] == "starting":
            world.job = None

    world.hears = hears
    with pytest.raises(RunFailed, match="job j is gone: someone else deleted it"):
        follow(world, tmp_path)
    assert "DELETE" not in world.done


def test_a_job_found_again_is_marked_at_once_and_its_log_goes_on(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "work" / "logs" / "j-master-0-uid-mast.log"
    file.parent.mkdir(parents=True)
    file.write_text("of the launcher before\n")
    world.logs["j-master-0"] = lambda: [f"{NOW} new"]

    def hears(name: str, fields: Fields) -> None:
        if name == "phase" and fields["phase"] == "running":
            world.pods = [
                pod(name, {"terminated": {"exitCode": 0}}) for name in ("master-0", "worker-0")
            ]
            threading.Timer(0.3, world.ends, ["Succeeded"]).start()

    world.hears = hears
    follow(world, tmp_path, attached=True)
    assert "PATCH" in world.done
    assert stored(tmp_path)[file.name] == "of the launcher before\nnew\n"


def test_a_retried_launcher_finds_its_job_though_a_quota_lets_no_other_be_made(
    world: World,
) -> None:
    world.refuses.add("POST")
    manifest: Any = {"metadata": {"name": "j", "annotations": {"hagane.dev/training": "7"}}}
    assert begin(Cluster(), manifest, this_owner(""), SPEC, world.log)
    world.job, world.pods = None, []
    with pytest.raises(ClusterError, match="cannot create pytorchjobs"):
        begin(Cluster(), manifest, this_owner(""), SPEC, world.log)


class SteppedClock:
    """Stands in for the module `time`: each sleep is over at once, and moves the clock on. Hours of
    grace cannot be waited for."""

    def __init__(self, world: World, *, job_gone_at_s: float) -> None:
        self._world, self._job_gone_at_s, self._now_s = world, job_gone_at_s, 0.0

    def monotonic(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s += 20 * seconds
        if self._now_s >= self._job_gone_at_s:
            self._world.job, self._world.pods = None, []


@pytest.mark.parametrize(
    ("backend", "grace_seconds", "gone_at_s", "waited_s"),
    [
        ("pytorchjob", 30, 80, 95),
        ("pytorchjob", 200, 240, 265),
        ("trainjob", 30, 160, 185),
        ("trainjob", 600, 640, 665),
    ],
)
def test_a_deleted_jobs_pods_have_all_their_grace_before_the_next_job_is_given_up(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    grace_seconds: int,
    gone_at_s: int,
    waited_s: int,
) -> None:
    spec = SPEC.model_copy(
        update={
            "backend": backend,
            "checkpoints": SPEC.checkpoints.model_copy(update={"grace_seconds": grace_seconds}),
        }
    )
    manifest: Any = {"metadata": {"name": "j", "annotations": {"hagane.dev/training": "7"}}}
    assert world.job is not None
    world.job["metadata"]["deletionTimestamp"] = NOW
    monkeypatch.setattr(in_cluster, "time", SteppedClock(world, job_gone_at_s=float("inf")))
    with pytest.raises(ClusterError, match=f"its pods are still there after {waited_s} s"):
        begin(Cluster(), manifest, this_owner(""), spec, world.log)
    monkeypatch.setattr(in_cluster, "time", SteppedClock(world, job_gone_at_s=gone_at_s))
    assert begin(Cluster(), manifest, this_owner(""), spec, world.log) is False


def test_a_job_is_made_only_when_the_pods_of_one_that_is_gone_already_are_gone_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest: Any = {"metadata": {"name": "j", "annotations": {"hagane.dev/training": "7"}}}
    world.job = None
    monkeypatch.setattr(in_cluster, "time", SteppedClock(world, job_gone_at_s=float("inf")))
    with pytest.raises(ClusterError, match="its pods are still there after"):
        begin(Cluster(), manifest, this_owner(""), SPEC, world.log)
    assert "POST" not in world.done
    monkeypatch.setattr(in_cluster, "time", SteppedClock(world, job_gone_at_s=40))
    assert begin(Cluster(), manifest, this_owner(""), SPEC, world.log) is False
