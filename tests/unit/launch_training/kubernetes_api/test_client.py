"""What an API server does now and then, and a launcher must outlast; see api_stand_in.py for why none is real here."""

import datetime
import json
import queue
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes.config.incluster_config
import pytest
from kubernetes import client

from components.launch_training.job.kinds import PYTORCHJOB, TRAINJOB, JobKind
from components.launch_training.kubernetes_api import client as module
from components.launch_training.kubernetes_api import watch as cluster_watch
from components.launch_training.kubernetes_api.client import Cluster
from components.launch_training.kubernetes_api.watch import Seen
from components.shared.errors import ClusterError
from tests.unit.launch_training.api_stand_in import ApiStandIn, kubeconfig, running, serve_tls

JOBS = "/apis/kubeflow.org/v1/namespaces/runs/pytorchjobs"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (module, cluster_watch):
        monkeypatch.setattr(each, "RELIST_PAUSE_S", 0.05)
    monkeypatch.setattr(client.Configuration, "_default", None)


def cluster_at(server: ApiStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig(server, folder)))
    return Cluster()


def listed(*labels: str) -> dict[str, Any]:
    items = [{"metadata": {"uid": "1", "name": "j", "labels": {"is": label}}} for label in labels]
    return {"kind": "List", "items": items, "metadata": {"resourceVersion": "5"}}


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def end_watches(seen: Seen) -> None:
    """None is asking any more: one that connects to a TLS server about to close leaves a socket that Python forgets to close."""
    seen.over = True
    wait_for(lambda: not any("_watch_one" in thread.name for thread in threading.enumerate()))


def label_of(seen: Seen) -> str | None:
    return None if seen.job is None else seen.job["metadata"]["labels"]["is"]


def test_a_watch_that_is_too_old_is_begun_again_from_a_new_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_lists = 0
    too_old = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}})

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, dict[str, Any] | list[str]]:
        nonlocal num_lists
        if path != JOBS:
            return 200, listed()
        if "watch" in parameters:
            return 200, [too_old]
        num_lists += 1
        return 200, listed(f"list {num_lists}")

    with running(ApiStandIn(answer)) as server:
        seen = cluster_at(server, tmp_path, monkeypatch).watch("j", queue.Queue())
        wait_for(lambda: num_lists >= 3)
        wait_for(lambda: label_of(seen) not in (None, "list 1"))
        end_watches(seen)


@pytest.mark.parametrize("answer", [["{cut off"], [json.dumps({"object": "of a proxy"})]])
def test_a_watch_that_tells_no_sense_is_begun_again(answer: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_lists = 0

    def answers(path: str, parameters: dict[str, str]) -> tuple[int, dict[str, Any] | list[str]]:
        nonlocal num_lists
        if path != JOBS or "watch" in parameters:
            return 200, answer if "watch" in parameters else listed()
        num_lists += 1
        return 200, listed(f"list {num_lists}")

    with running(ApiStandIn(answers)) as server:
        seen = cluster_at(server, tmp_path, monkeypatch).watch("j", queue.Queue())
        wait_for(lambda: label_of(seen) not in (None, "list 1"))
        end_watches(seen)


def test_a_pods_exchanged_token_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, for the certificate of a server that a pod would trust")
    for name, text in (("token", "old"), ("namespace", "runs")):
        (tmp_path / name).write_text(text)
    later = datetime.timedelta()
    clock = SimpleNamespace(now=lambda: datetime.datetime.now() + later)
    module_clock = SimpleNamespace(datetime=clock, timedelta=datetime.timedelta)
    monkeypatch.setattr(kubernetes.config.incluster_config, "datetime", module_clock)  # a token is kept for a minute
    server = ApiStandIn(lambda path, _: (200, listed("old" if server.token == "old" else "new") if path == JOBS else listed()))
    server.token = "old"
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(serve_tls(server, tmp_path)))
    monkeypatch.setattr(module, "TOKEN_FOLDER", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    with running(server):
        seen = Cluster().watch("j", queue.Queue())
        wait_for(lambda: label_of(seen) == "old")
        server.token = "new"
        (tmp_path / "token").write_text("new")
        wait_for(lambda: seen.unheard_since is not None)
        later = datetime.timedelta(minutes=2)
        wait_for(lambda: label_of(seen) == "new" and seen.unheard_since is None)
        end_watches(seen)


def test_a_busy_api_server_is_asked_again_and_a_refusal_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[int, dict[str, Any]]] = [(503, {}), (429, {}), (200, {"metadata": {"name": "j"}})]
    answers.append((403, {"message": "pytorchjobs is forbidden"}))
    with running(ApiStandIn(lambda *_: answers.pop(0))) as server:
        cluster = cluster_at(server, tmp_path, monkeypatch)
        assert cluster.job("j") == {"metadata": {"name": "j"}}
        with pytest.raises(ClusterError, match=r"the launcher's account needs the Role of k8s/base/launcher-role.yaml"):
            cluster.job("j")


def test_an_api_server_that_does_not_answer_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    with running(ApiStandIn(lambda *_: (200, {}))) as server:
        cluster = cluster_at(server, tmp_path, monkeypatch)
    with pytest.raises(ClusterError, match="cannot get pytorchjobs in namespace runs: the API server does not answer"):
        cluster.job("j")


def test_a_log_that_breaks_off_is_read_on_without_a_line_lost_or_told_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"2026-11-24T20:45:0{second}.000000000Z line {second}" for second in range(6)]
    gone = "rpc error: code = NotFound desc = an error occurred when try to find container"  # the kubelet's, on a real node
    parts = [lines[:3], [*lines[1:5], gone], lines[4:]]
    asked: list[dict[str, str]] = []

    def answer(_: str, parameters: dict[str, str]) -> tuple[int, list[str]]:
        asked.append(parameters)
        return 200, parts.pop(0)

    with running(ApiStandIn(answer)) as server:
        cluster = cluster_at(server, tmp_path, monkeypatch)
        told = list(cluster.follow_log("p", ended=lambda: len(parts) == 1, only_new=False))
    assert told == [f"line {second}" for second in range(6)]
    assert ["sinceSeconds" in each for each in asked] == [False, True, True]


@pytest.mark.parametrize("zone", ["Z", "+09:00"])
def test_lines_that_share_their_time_or_come_late_are_told_once_each(zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CRI-O gives all lines of one read of a pipe one time; of stdout and stderr, containerd may store the later line first."""
    made = datetime.datetime.now(datetime.UTC).astimezone(datetime.timezone(datetime.timedelta(hours=9 if zone != "Z" else 0)))
    times = [(made + datetime.timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.000000000") + zone for second in range(4)]
    lines = [f"{times[each]} line {number}" for number, each in enumerate((0, 0, 1, 0, 1, 1, 2, 2, 3))]
    parts, asked = [lines[:5], lines[:8], lines], list[dict[str, str]]()

    def answer(_: str, parameters: dict[str, str]) -> tuple[int, list[str]]:
        asked.append(parameters)
        return 200, parts.pop(0)

    with running(ApiStandIn(answer)) as server:
        cluster = cluster_at(server, tmp_path, monkeypatch)
        told = list(cluster.follow_log("p", ended=lambda: len(parts) == 1, only_new=False))
    assert told == [f"line {number}" for number in range(9)]
    assert all(1 <= int(each["sinceSeconds"]) <= 10 for each in asked[1:])


def test_the_end_of_a_log_is_asked_for_again_while_the_api_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[int, Any]] = [(503, {}), (200, ["2026-11-24T20:45:00Z last words"])]
    with running(ApiStandIn(lambda *_: answers.pop(0))) as server:
        cluster = cluster_at(server, tmp_path, monkeypatch)
        assert list(cluster.follow_log("p", ended=lambda: True, only_new=False)) == ["last words"]
    assert list(cluster.follow_log("p", ended=lambda: True, only_new=False)) == []


@pytest.mark.parametrize("kind", [PYTORCHJOB, TRAINJOB])
def test_a_namespace_that_is_not_there_is_told_from_a_kind_that_is_not(
    kind: JobKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(404, {"message": 'namespaces "runs" not found'}), (404, {"message": "the server could not find the requested resource"})]
    with running(ApiStandIn(lambda *_: answers.pop(0))) as server:
        cluster = cluster_at(server, tmp_path, monkeypatch)
        cluster.kind = kind
        with pytest.raises(ClusterError, match=r'namespaces "runs" not found; set cluster.namespace'):
            cluster.job("j")
        with pytest.raises(ClusterError) as caught:
            cluster.job("j")
    (line,) = caught.value.problems
    assert f"there is no {kind.name} in this cluster (404). Fix: install {kind.installed_by}" in line
    assert caught.value.exit_code == 2


NO_RUNTIME = 'admission webhook "vtrainjob.kb.io" denied the request: TrainingRuntime.trainer.kubeflow.org "hagane" not found'
NO_QUOTA = 'pytorchjobs.kubeflow.org "j" is forbidden: exceeded quota: q, requested: count/pytorchjobs.kubeflow.org=1, used: 1, limited: 1'
NO_RIGHT = 'pytorchjobs.kubeflow.org is forbidden: User "u" cannot create resource "pytorchjobs" in API group "kubeflow.org"'


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (NO_RUNTIME, f"{NO_RUNTIME}. Fix: kubectl apply -n NAMESPACE -f k8s/overlays/trainjob/runtime.yaml"),
        (NO_QUOTA, f"{NO_QUOTA}. Fix: wait until other jobs end"),
        ('admission webhook "policy" denied the request: team label missing', "denied the request: team label missing"),
        (NO_RIGHT, "not allowed (403); the launcher's account needs the Role of k8s/base"),
    ],
)
def test_what_refuses_a_job_is_shown_as_it_stands_and_only_a_missing_right_as_one(
    message: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(ApiStandIn(lambda *_: (200, {}), lambda *_: (403, {"message": message}))) as server:
        cluster = cluster_at(server, tmp_path, monkeypatch)
        with pytest.raises(ClusterError) as caught:
            cluster.create({"metadata": {"name": "j"}})
    assert caught.value.exit_code == 2
    assert expected in caught.value.problems[0]
    assert ("needs the Role" in caught.value.problems[0]) is (message is NO_RIGHT)


def test_a_job_whose_creation_was_broken_off_is_deleted_when_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = [False, False, True]
    deleted: list[str] = []

    def change(verb: str, path: str, *_: object) -> tuple[int, dict[str, Any]]:
        if verb == "POST":
            return 200, {}
        if not there.pop(0):
            return 404, {"message": "pytorchjobs not found"}
        deleted.append(path)
        return 200, {}

    with running(ApiStandIn(lambda *_: (200, {}), change)) as server:
        cluster = cluster_at(server, tmp_path, monkeypatch)

        def broken_off(*_: object) -> None:
            raise SystemExit(143)

        with monkeypatch.context() as patch:
            patch.setattr(cluster, "_ask", broken_off)
            with pytest.raises(SystemExit):
                cluster.create({"metadata": {"name": "j"}})
        cluster.delete("j")
    assert len(deleted) == 1
