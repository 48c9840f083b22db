"""What the launcher makes of objects as real controllers wrote them (tests/data/job_objects): each
stage is served by a stand-in for the API server, and read by the real follower."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from kubernetes import client

from components.launch_training.backends import follower
from components.launch_training.backends.follower import Follower
from components.launch_training.ending.ownership import this_owner
from components.launch_training.job import events as job_events
from components.launch_training.job import workload
from components.launch_training.job.deadlines import clock_of
from components.launch_training.job.events import event_time, job_warnings, newest_message
from components.launch_training.job.kinds import PYTORCHJOB, TRAINJOB, JobKind
from components.launch_training.job.phases import Phase
from components.launch_training.kubernetes_api import client as cluster_module
from components.launch_training.kubernetes_api import watch as cluster_watch
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.errors import ClusterError, HaganeError, RunFailed
from components.shared.spec.cluster import ClusterSpec
from components.shared.spec.file import spec_from_parameter
from components.shared.step import Log
from components.shared.store.storage import LocalStore
from tests.support.made_plan import make_plan
from tests.unit.launch_training.api_stand_in import ApiStandIn, kubeconfig, running

OBJECTS = Path(__file__).parents[2] / "data" / "job_objects"
SPEC = spec_from_parameter(
    {
        "name": "t",
        "store": "s",
        "backend": "trainjob",
        "model": {"source": "m"},
        "data": {"train": "d"},
    }
)
PLAN = make_plan(SPEC)
Fields = dict[str, Any]
KUEUE = {
    "name": "kueue.x-k8s.io",
    "versions": [{"groupVersion": "kueue.x-k8s.io/v1beta2", "version": "v1beta2"}],
    "preferredVersion": {"groupVersion": "kueue.x-k8s.io/v1beta2", "version": "v1beta2"},
}
LOOKS = 3
"""Of each kind: the third is asked for when the second answer was heard of."""


def stage(name: str) -> Fields:
    return json.loads((OBJECTS / f"{name}.json").read_text())


@dataclass
class Recorded:
    """One stage, as the API server has it; gone once the follower has looked at it."""

    found: Fields
    groups: list[Fields] = field(default_factory=lambda: [KUEUE])
    stays: bool = False
    looks: Counter[str] = field(default_factory=Counter)
    said: list[tuple[str, Fields]] = field(default_factory=list)
    deleted: bool = False
    may_read_workloads: bool = True
    hears: Callable[[str, Fields], None] = lambda *_: None
    num_reported: int = 0
    """How often the follower has said what it makes of the stage."""
    reported_when_read: int | None = None
    """That number when it had heard of everything."""
    ticks: int = 3
    """How often it looks after that."""
    earlier: list[tuple[str, list[Fields]]] = field(default_factory=list)
    """Pods as they were before the stage, and the words by which the follower shows them: the next
    are served once it did."""

    @property
    def kind(self) -> JobKind:
        return TRAINJOB if self.found["job"]["kind"] == "TrainJob" else PYTORCHJOB

    @property
    def is_over(self) -> bool:
        of_events = [num for what, num in self.looks.items() if what.startswith("involvedObject")]
        looked = [self.looks["job"], self.looks["pods"], self.looks["queue"], *of_events]
        is_read = len(of_events) == len(self.kind.makers("")) + 1 and min(looked) >= LOOKS
        if is_read and self.reported_when_read is None:
            self.reported_when_read = self.num_reported
        is_said = (
            self.reported_when_read is not None
            and self.num_reported >= self.reported_when_read + self.ticks
        )
        return self.deleted or (is_said and not self.stays and not self.earlier)

    def answer(self, path: str, parameters: dict[str, str]) -> tuple[int, Fields | Iterable[str]]:
        what = path.rpartition("/")[2]
        if "watch" in parameters:
            return 200, []
        if path.rstrip("/") == "/apis":
            self.looks["queue"] += 1
            return 200, {"kind": "APIGroupList", "groups": self.groups}
        if what == self.kind.plural:
            self.looks["job"] += 1
            return 200, _list([] if self.is_over else [self.found["job"]])
        if what == "workloads" and not self.may_read_workloads:
            return 403, {"message": "workloads.kueue.x-k8s.io is forbidden"}
        if what == "workloads":
            wanted = parameters["labelSelector"].partition("=")[2]
            given = self.found["workload"]
            fits = (
                given is not None and given["metadata"]["labels"][workload.JOB_UID_LABEL] == wanted
            )
            return 200, _list([cast(Fields, given)] if fits else [])
        if what == "events":
            self.looks[parameters["fieldSelector"]] += 1
            return 200, _list(
                [
                    each
                    for each in self.found["events"]
                    if _selected(each, parameters["fieldSelector"])
                ]
            )
        self.looks[what] += 1
        pods = self.earlier[0][1] if self.earlier else self.found["pods"]
        return 200, _list(pods if what == "pods" else [])

    def change(self, verb: str, path: str, *_: Fields) -> tuple[int, Fields]:
        self.deleted |= verb == "DELETE"
        return 200, {}

    def info(self, name: str, **fields: Any) -> None:
        self.said.append((name, fields))
        self.hears(name, fields)
        if name == "phase" and self.earlier and fields["detail"] == self.earlier[0][0]:
            self.earlier.pop(0)
            self.looks.clear()
            self.reported_when_read = None
        if "queue" not in self.looks and workload.queue_of(self.found["job"]) is None:
            self.looks["queue"] = LOOKS

    warning = error = info

    @property
    def phase(self) -> Phase:
        fields = next(fields for name, fields in reversed(self.said) if name == "phase")
        return Phase(fields["phase"], fields["detail"])


def _list(items: list[Fields]) -> Fields:
    return {"kind": "List", "items": items, "metadata": {"resourceVersion": "5"}}


def _selected(event: Fields, selector: str) -> bool:
    wanted = dict(each.split("=") for each in selector.split(","))
    found = {
        "involvedObject.name": event["involvedObject"]["name"],
        "involvedObject.kind": event["involvedObject"]["kind"],
    }
    return (found | {"type": event["type"]}).items() >= wanted.items()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (cluster_module, cluster_watch):
        monkeypatch.setattr(each, "RELIST_PAUSE_S", 0.02)
    monkeypatch.setattr(cluster_watch, "WORKLOAD_S", 0.02)
    monkeypatch.setattr(follower, "TICK_S", 0.02)
    monkeypatch.setattr(follower, "LOGS_END_S", 0.2)
    monkeypatch.setattr(client.Configuration, "_default", None)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that has a stage read by the follower, and returns how it ended."""

    def read(recorded: Recorded, *, attached: bool = False, **spec: Any) -> HaganeError | None:
        with running(ApiStandIn(recorded.answer, recorded.change)) as server:
            file = str(kubeconfig(server, tmp_path))
            monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", file)
            name, store = recorded.found["job"]["metadata"]["name"], LocalStore(tmp_path / "run")
            reader = Follower(
                Cluster(None, recorded.kind),
                name,
                PLAN,
                ClusterSpec(**spec),
                store,
                tmp_path / "work",
                cast(Log, recorded),
                owner=this_owner(""),
                attached=attached,
            )
            tell = reader._tell

            def count(phase: Phase) -> None:
                tell(phase)
                recorded.num_reported += 1

            monkeypatch.setattr(reader, "_tell", count)
            try:
                reader.follow()
            except HaganeError as error:
                return error
        return None

    return read


MEET = "all pods run; the processes meet"
HELD = "The ClusterQueue is stopped; ClusterQueue hagane is inactive"
BACKOFF = (
    "jobset failed due to one or more job failures (first failed job: {}-node-0) (the Job's "
    "backoffLimit ended it)"
)
STAGES = {
    "01-running": ("starting", MEET, "start_timeout_minutes"),
    "02-failed-backoff": ("failed", BACKOFF.format("ok-run-7174f652"), ""),
    "03-jobset-refused": (
        "queued",
        'admission webhook "vjobset.kb.io" denied the request',
        "queue_timeout_minutes",
    ),
    "04-eight-failed": ("failed", BACKOFF.format("eight-d85f55e8"), ""),
    "05-succeeded": ("succeeded", "", ""),
    "06-deadline": (
        "failed",
        (
            "TrainJob exceeded its active deadline (activeDeadlineSeconds "
            "(cluster.run_timeout_hours) ended it)"
        ),
        "",
    ),
    "07-lostpod": ("restarting", MEET, "start_timeout_minutes"),
    "10-kueue-inadmissible": (
        "queued",
        (
            "queue hagane: couldn't assign flavors to pod set node: resource ephemeral-storage "
            "unavailable in ClusterQueue"
        ),
        "queue_timeout_minutes",
    ),
    "11-kueue-admitted-jobset-still-suspended": (
        "admitted",
        'admission webhook "vjobset.kb.io" denied the request',
        "start_timeout_minutes",
    ),
    "12-kueue-admitted-running": ("starting", MEET, "start_timeout_minutes"),
    "13-kueue-evicting": ("evicted", HELD, "queue_timeout_minutes"),
    "14-kueue-evicted": ("evicted", HELD, "queue_timeout_minutes"),
    "15-kueue-readmitted": ("starting", MEET, "start_timeout_minutes"),
    "16-kueue-finished": ("succeeded", "", ""),
    "20-pytorchjob-no-workload": (
        "queued",
        "suspended until queue hagane admits it",
        "queue_timeout_minutes",
    ),
    "21-pytorchjob-workload": (
        "admitted",
        "by queue hagane; the job is not resumed yet",
        "start_timeout_minutes",
    ),
    "30-unschedulable": (
        "scheduling",
        "node-0: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        "queue_timeout_minutes",
    ),
    "31-imagepull": (
        "pulling",
        "ImagePullBackOff: Back-off pulling image",
        "start_timeout_minutes",
    ),
    "40-jobset-restarted": ("restarting", MEET, "start_timeout_minutes"),
    "50-trainer221-kueue-running": ("starting", MEET, "start_timeout_minutes"),
    "60-kueue-preempted": (
        "requeued",
        (
            "insufficient unused quota for cpu in flavor pool, 1 more needed; before that: "
            "Preempted to accommodate"
        ),
        "queue_timeout_minutes",
    ),
}
"""Stage -> its phase, what stands in its reason, and the setting that ends it."""


def test_every_recorded_stage_is_read() -> None:
    assert {path.stem for path in OBJECTS.glob("*.json")} == STAGES.keys() | {"events"}


def lost_before(name: str, found: Fields) -> list[tuple[str, list[Fields]]]:
    """What came before a stage that one look cannot show: all pods ran, one was lost (07) or all
    were made anew (40)."""
    if name not in ("07-lostpod", "40-jobset-restarted"):
        return []
    made = found["job"]["metadata"]["creationTimestamp"]
    first = [
        {
            **pod,
            "metadata": {**pod["metadata"], "uid": f"first-{number}", "creationTimestamp": made},
        }
        for number, pod in enumerate(found["pods"])
    ]
    kept = found["pods"][:1] if name == "07-lostpod" else []
    all_pods = [*kept, *first[len(kept) :]]
    return [(MEET, all_pods), (f"{len(kept)} of 2 pods are there", kept)]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_shown_with_its_phase_reason_and_clock(name: str, read: Any) -> None:
    found = stage(name)
    recorded = Recorded(found, earlier=lost_before(name, found))
    read(recorded)
    phase, reason, clock = STAGES[name]
    print(f"{name} | {recorded.phase.name} | {recorded.phase.detail} | {clock_of(recorded.phase)}")
    assert recorded.phase.name == phase
    assert reason in recorded.phase.detail
    assert clock_of(recorded.phase) == clock


class LateEvents(Recorded):
    """No event is heard of before the job's end is."""

    def answer(self, path: str, parameters: dict[str, str]) -> tuple[int, Fields | Iterable[str]]:
        is_late = path.endswith("/events") and self.looks["job"] < LOOKS
        return (200, _list([])) if is_late else super().answer(path, parameters)


def test_a_limit_is_named_though_its_event_is_heard_of_after_the_jobs_end(read: Any) -> None:
    error = read(LateEvents(stage("02-failed-backoff")))
    assert isinstance(error, RunFailed)
    assert "(the Job's backoffLimit ended it)" in str(error)


def test_a_job_that_no_limit_ended_is_not_waited_for_for_long(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LIMIT_S", 0.3)
    found = stage("02-failed-backoff") | {"events": []}
    error = read(Recorded(found))
    assert isinstance(error, RunFailed)
    assert str(error).endswith("(first failed job: ok-run-7174f652-node-0)")


def events() -> list[Fields]:
    return json.loads((OBJECTS / "events.json").read_text())


def test_of_a_rerun_no_event_of_the_earlier_job_is_shown() -> None:
    again = [
        each for each in events() if each["involvedObject"]["name"].startswith("again-009272d3")
    ]
    assert {each["involvedObject"]["kind"] for each in again} == {"Job", "JobSet"}
    job = stage("02-failed-backoff")["job"]
    job["metadata"] |= {"name": "again-009272d3", "creationTimestamp": "2026-11-29T23:01:10Z"}
    assert newest_message(job_warnings(TRAINJOB, job, [], again)).startswith("jobset failed")
    job["metadata"]["creationTimestamp"] = (
        "2026-11-29T23:01:37Z"  # in the second in which the earlier one ended
    )
    assert [each["reason"] for each in job_warnings(TRAINJOB, job, [], again)] == ["FailedJobs"]
    job["metadata"]["creationTimestamp"] = "2026-11-29T23:01:38Z"
    assert job_warnings(TRAINJOB, job, [], again) == []


def test_events_of_another_jobs_uid_or_pod_are_not_this_ones() -> None:
    found = stage("03-jobset-refused")
    assert len(job_warnings(TRAINJOB, found["job"], [], found["events"])) == 1
    found["job"]["metadata"]["uid"] = "another"
    assert job_warnings(TRAINJOB, found["job"], [], found["events"]) == []
    pod = {"kind": "Pod", "name": "p", "uid": "of-another-job"}
    of_pod = {**found["events"][0], "involvedObject": pod}
    assert job_warnings(TRAINJOB, found["job"], [], [of_pod]) == []
    assert job_warnings(
        TRAINJOB, found["job"], [{"metadata": {"uid": "of-another-job"}}], [of_pod]
    ) == [of_pod]


def test_events_of_both_apis_are_in_the_order_in_which_they_were_last_seen() -> None:
    refused = stage("03-jobset-refused")["events"][0]
    assert refused["lastTimestamp"] is None
    assert event_time(refused).isoformat() == "2026-11-29T22:53:18.569693+00:00"
    (quota,) = [each for each in events() if each["reason"] == "FailedCreate"]
    assert event_time(quota).isoformat() == "2026-11-29T23:01:01+00:00"


def test_a_full_quota_is_one_message_however_often_a_pod_is_tried() -> None:
    (quota,) = [each for each in events() if each["reason"] == "FailedCreate"]
    retried = {**quota, "message": quota["message"].replace("lk9f8", "x2b4c")}
    assert newest_message([quota]) == newest_message([retried])
    assert (
        'pods "quota-ed8af82d-node-0-1-…" is forbidden: exceeded quota: q, requested: '
        "limits.memory=1848Mi"
    ) in newest_message([quota])


def test_a_whole_object_in_a_webhooks_denial_is_left_out() -> None:
    (denied,) = stage("11-kueue-admitted-jobset-still-suspended")["events"]
    assert newest_message([denied]).endswith(
        '"q-one-013d3bfb" is invalid: spec.replicatedJobs: Invalid value: …'
    )
    longer = {
        **denied,
        "message": denied["message"].removesuffix(" ...") + "}]: field is immutable",
    }
    assert newest_message([longer]).endswith("Invalid value: …: field is immutable")


def test_a_pod_lost_from_a_complete_job_is_restarting_on_the_restarts_clock(read: Any) -> None:
    recorded = Recorded(stage("07-lostpod"))

    def loses(name: str, fields: Fields) -> None:
        if name == "phase" and fields["phase"] == "starting":
            recorded.found["pods"] = recorded.found["pods"][:1]

    recorded.hears = loses
    read(recorded)
    assert recorded.phase == Phase("restarting", "1 of 2 pods are there")
    assert clock_of(recorded.phase) == "start_timeout_minutes"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, "Kueue made no Workload for the job within"),
        ({"groups": []}, "this cluster has no Kueue"),
    ],
)
def test_a_job_that_nobody_admits_is_deleted_with_the_fix(
    change: Fields, problem: str, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "NO_WORKLOAD_S", 0.3)
    monkeypatch.setattr(workload, "HOPELESS_S", 0.3)
    recorded = Recorded(stage("20-pytorchjob-no-workload"), stays=True, **change)
    error = read(recorded)
    assert isinstance(error, ClusterError)
    assert error.exit_code == 2
    assert error.problems[0].startswith(f"cluster.queue: {problem}")
    assert "Fix: " in error.problems[0]
    assert recorded.deleted
    if not change:
        assert "kubeflow.org/pytorchjob under integrations.frameworks" in error.problems[0]


OF_TWO_FLAVORS = (
    "couldn't assign flavors to pod set node: insufficient quota for nvidia.com/gpu in flavor "
    "spot, previously considered podsets requests (0) + current podset request (8) > maximum "
    "capacity (4), insufficient unused quota for nvidia.com/gpu in flavor on-demand, 8 more needed"
)


@pytest.mark.parametrize(
    ("message", "reason", "fix"),
    [
        ("LocalQueue nosuch doesn't exist", "Inadmissible", "name a LocalQueue of this namespace"),
        ("ClusterQueue hagane is inactive", "Inadmissible", "a stopPolicy holds it"),
        (
            (
                "couldn't assign flavors to pod set node: resource ephemeral-storage unavailable "
                "in ClusterQueue"
            ),
            "Pending",
            "coveredResources",
        ),
        (
            "insufficient quota for cpu in flavor pool, request (130) > maximum capacity (64)",
            "Pending",
            "nominalQuota",
        ),
        ("insufficient unused quota for cpu in flavor pool, 1 more needed", "Pending", None),
        (OF_TWO_FLAVORS, "Pending", None),
        (
            "insufficient quota for cpu in flavor pool, request (130) > maximum capacity (64)",
            "WaitingForQuota",
            None,
        ),
    ],
)
def test_a_new_job_that_its_queue_never_admits_is_deleted_and_one_that_only_waits_is_not(
    message: str, reason: str, fix: str | None, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "HOPELESS_S", 0.2)
    found = stage("10-kueue-inadmissible")
    found["workload"]["status"]["conditions"] = [
        {"type": "QuotaReserved", "status": "False", "reason": reason, "message": message}
    ]
    recorded = Recorded(found, stays=fix is not None)
    if fix is None:
        recorded.ticks = 60  # it is looked at for longer than that
    error = read(recorded)
    assert isinstance(error, RunFailed if fix is None else ClusterError)
    assert recorded.deleted is (fix is not None)
    if fix is not None:
        assert error.exit_code == 2
        assert message in error.problems[0]
        assert fix in error.problems[0].partition("Fix: ")[2]


def test_a_job_found_again_waits_though_its_queue_is_held(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "HOPELESS_S", 0.1)
    recorded = Recorded(stage("10-kueue-inadmissible"))
    recorded.ticks = 60
    began = time.monotonic()
    assert isinstance(read(recorded, attached=True), RunFailed)
    assert time.monotonic() - began > 0.1
    assert not recorded.deleted


def reserved(message: str, reason: str) -> Fields:
    """Status of a Workload that has no quota yet."""
    return {
        "conditions": [
            {"type": "QuotaReserved", "status": "False", "reason": reason, "message": message}
        ]
    }


@pytest.mark.parametrize("what", ["queue", "workload", "kueue"])
def test_one_bad_answer_does_not_end_a_job_that_has_waited_long(
    what: str, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "NO_WORKLOAD_S", 0.3)
    monkeypatch.setattr(workload, "HOPELESS_S", 0.3)
    recorded = Recorded(stage("10-kueue-inadmissible"), stays=True)
    waiting = {
        **recorded.found["workload"],
        "status": reserved(
            "insufficient unused quota for cpu in flavor pool, 1 more needed", "Pending"
        ),
    }
    held = {**waiting, "status": reserved("ClusterQueue hagane is inactive", "Inadmissible")}
    recorded.found["workload"] = waiting

    def goes_bad() -> None:
        recorded.groups = [] if what == "kueue" else [KUEUE]
        recorded.found["workload"] = {"queue": held, "workload": None, "kueue": waiting}[what]

    def hears(name: str, fields: Fields) -> None:
        if name != "phase" or not recorded.looks["queue"]:
            return
        if "insufficient unused" in fields["detail"] and recorded.stays:
            threading.Timer(0.6, goes_bad).start()
        elif recorded.groups == [] or recorded.found["workload"] != waiting:
            recorded.groups, recorded.found["workload"], recorded.stays = [KUEUE], waiting, False

    recorded.hears = hears
    assert isinstance(read(recorded), RunFailed)
    assert not recorded.stays
    assert not recorded.deleted


class NoAnswerOnKueue(Recorded):
    def answer(self, path: str, parameters: dict[str, str]) -> tuple[int, Fields | Iterable[str]]:
        status, body = super().answer(path, parameters)
        return (
            (500, {"message": "etcdserver: leader changed"})
            if path.rstrip("/") == "/apis"
            else (status, body)
        )


def test_while_the_api_server_says_nothing_of_kueue_no_workload_is_missed(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "NO_WORKLOAD_S", 0.1)
    recorded = NoAnswerOnKueue(stage("20-pytorchjob-no-workload"))
    recorded.ticks = 30  # it is looked at for longer than that
    assert isinstance(read(recorded), RunFailed)
    assert not recorded.deleted


def test_a_launcher_that_may_not_read_workloads_waits_and_says_so(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "NO_WORKLOAD_S", 0.1)
    recorded = Recorded(stage("10-kueue-inadmissible"), may_read_workloads=False)
    assert isinstance(read(recorded), RunFailed)
    assert recorded.phase.name == "queued"
    assert "may not list workloads.kueue.x-k8s.io (k8s/base)" in recorded.phase.detail


def of_reason(reason: str, job: Fields, kind: str) -> Fields:
    """The recorded event of this reason, as one of this job."""
    event = next(each for each in events() if each["reason"] == reason)
    about = {"kind": kind, "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    return {
        **event,
        "involvedObject": about,
        "eventTime": job["metadata"]["creationTimestamp"],
        "lastTimestamp": None,
        "series": None,
    }


@pytest.mark.parametrize(
    ("name", "reason", "message", "words", "fix"),
    [
        ("03-jobset-refused", None, None, 'JobSet.jobset.x-k8s.io "swallow-70b-instruct', ""),
        (
            "11-kueue-admitted-jobset-still-suspended",
            None,
            None,
            'admission webhook "vjobset.kb.io" denied',
            "cluster.runtime: hagane",
        ),
        (
            "01-running",
            "JobCreationFailed",
            None,
            "containers[1].image: Required value",
            "cluster.pod_patch names a container",
        ),
        (
            "01-running",
            "TrainJobResourcesCreationFailed",
            (
                'TrainJob resources reconciliation failed: no matches for kind "JobSet" in '
                'version "jobset.x-k8s.io/v1alpha2"'
            ),
            "no matches for kind",
            "install JobSet",
        ),
        (
            "01-running",
            "FailedCreate",
            'pods "j-0" is forbidden: violates PodSecurity "restricted:latest"',
            "violates",
            "PodSecurity level",
        ),
        ("01-running", "FailedCreate", None, "exceeded quota", None),
    ],
)
def test_a_job_whose_pods_can_never_be_made_is_deleted_with_the_clusters_words(
    name: str,
    reason: str | None,
    message: str | None,
    words: str,
    fix: str | None,
    read: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_events, "REFUSED_S", 0.2)
    found = stage(name)
    found["pods"] = []
    if reason is not None:
        event = of_reason(reason, found["job"], "TrainJob")
        found["events"] = [event if message is None else {**event, "message": message}]
    recorded = Recorded(found, stays=fix is not None)
    if fix is None:
        recorded.ticks = 60  # it is looked at for longer than that
    error = read(recorded)
    assert recorded.deleted is (fix is not None)
    if fix is None:
        assert isinstance(error, RunFailed)
        assert words in recorded.phase.detail
        return
    assert isinstance(error, ClusterError)
    assert error.exit_code == 2
    assert words in error.problems[0]
    assert fix in error.problems[0]
