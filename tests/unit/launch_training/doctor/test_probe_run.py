"""What the doctor's probe of a queue says of an API server that stops to answer, which no real cluster does on demand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from components.launch_training.doctor.probe_run import probe_queue
from components.launch_training.doctor.queue_checks import effect_finding
from components.launch_training.job.kinds import PYTORCHJOB
from components.launch_training.job.workload import QUEUE_LABEL, Queueing
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.errors import ClusterError
from tests.unit.launch_training.api_stand_in import ApiStandIn, JobKeeper, kubeconfig, running

MANIFEST = Path(__file__).parents[3] / "golden/pytorchjob/cpu-two-nodes.yaml"
KUEUE = {"name": "kueue.x-k8s.io", "preferredVersion": {"version": "v1beta2", "groupVersion": "kueue.x-k8s.io/v1beta2"}, "versions": []}
SECONDS = 1.2
"""Three looks at the queue."""
Answered = tuple[int, dict[str, Any] | list[str]]


class Api:
    """Keeps jobs; answers about Kueue `num_answers` times, and then with 503."""

    def __init__(self) -> None:
        self.keeper = JobKeeper()
        self.num_answers = 0
        self.loses_jobs = False

    def answer(self, path: str, parameters: dict[str, str]) -> Answered:
        if path == "/apis/":
            self.num_answers -= 1
            groups = {"kind": "APIGroupList", "apiVersion": "v1", "groups": [KUEUE]}
            return (200, groups) if self.num_answers >= 0 else (503, {"message": "etcd has no leader"})
        return (200, {"items": []}) if "workloads" in path else self.keeper.answer(path, parameters)

    def change(self, verb: str, path: str, parameters: dict[str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if verb == "POST":
            body["metadata"]["uid"] = "u"
        if self.loses_jobs:
            return (404, {"message": "not found"}) if verb == "DELETE" else (200, body)
        return self.keeper.change(verb, path, parameters, body)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(client.Configuration, "_default", None)
    api = Api()
    with running(ApiStandIn(api.answer, api.change)) as server:
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig(server, tmp_path)))
        yield api


def probed() -> Queueing:
    job = yaml.safe_load(MANIFEST.read_text())
    job["metadata"].setdefault("labels", {})[QUEUE_LABEL] = "q"
    return probe_queue(Cluster("runs", PYTORCHJOB), job, seconds=SECONDS)


@pytest.mark.parametrize("num_answers", [0, 1])
def test_an_api_server_that_does_not_answer_is_not_taken_for_a_queue_without_workload(num_answers: int, api: Api) -> None:
    api.num_answers = num_answers
    finding = effect_finding(PYTORCHJOB, "q", probed(), waited_s=SECONDS)
    assert finding.state == "skipped"
    assert "the API server did not answer within 1 s whether Kueue took it up" in finding.found
    assert finding.mend == "run doctor again when the API server answers"
    assert api.keeper.jobs == {}


def test_a_queue_that_makes_no_workload_is_still_named_while_the_api_server_answers(api: Api) -> None:
    api.num_answers = 100
    finding = effect_finding(PYTORCHJOB, "q", probed(), waited_s=SECONDS)
    assert (finding.state, "Kueue made no Workload" in finding.found) == ("failed", True)


def test_a_probe_that_somebody_else_deleted_is_an_error(api: Api) -> None:
    api.loses_jobs = True
    with pytest.raises(ClusterError, match="is gone: someone else deleted it"):
        probed()
