import pytest

from components.launch_training.job.deadlines import overdue, uploads_s
from components.launch_training.job.kinds import PYTORCHJOB, TRAINJOB
from components.launch_training.job.phases import (
    Fields,
    Phase,
    ended_badly,
    is_over,
    life_of,
    phase_of,
    pods_of,
    sentence,
)
from components.shared.documents.plan import TimePlan
from components.shared.spec.cluster import ClusterSpec
from components.shared.spec.file import spec_from_parameter
from tests.support.made_plan import make_plan

SCHEDULED = {"type": "PodScheduled", "status": "True"}


def job(
    *conditions: str, workers: int = 1, suspend: bool = False, queue: str | None = None
) -> Fields:
    replicas = {"Master": {"replicas": 1}, "Worker": {"replicas": workers}}
    return {
        "metadata": {"name": "j", "labels": {"kueue.x-k8s.io/queue-name": queue} if queue else {}},
        "spec": {"pytorchReplicaSpecs": replicas, "runPolicy": {"suspend": suspend}},
        "status": {
            "conditions": [
                {"type": kind, "status": "True", "message": f"j is {kind}"} for kind in conditions
            ]
        },
    }


def pod(
    name: str,
    phase: str = "Running",
    *,
    state: Fields | None = None,
    scheduled: Fields = SCHEDULED,
    init: Fields | None = None,
) -> Fields:
    kind, index = name.split("-")
    status: Fields = {"phase": phase, "conditions": [scheduled]}
    if state is not None:
        status["containerStatuses"] = [{"name": "pytorch", "image": "train:1", "state": state}]
    if init is not None:
        status["initContainerStatuses"] = [
            {"name": "init-pytorch", "image": "alpine", "state": init}
        ]
    labels = {
        "training.kubeflow.org/replica-type": kind,
        "training.kubeflow.org/replica-index": index,
    }
    limits = {"resources": {"limits": {"memory": "1024Mi"}}}
    return {
        "metadata": {"name": f"j-{name}", "uid": f"uid-{name}", "labels": labels},
        "spec": {"containers": [{"name": "pytorch", **limits}]},
        "status": status,
    }


def ended(name: str, exit_code: int, at: str, reason: str = "Error") -> Fields:
    return pod(
        name,
        "Failed",
        state={"terminated": {"exitCode": exit_code, "finishedAt": at, "reason": reason}},
    )


RUNNING = {"running": {"startedAt": "now"}}
NO_NODE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes: Insufficient nvidia.com/gpu.",
}


@pytest.mark.parametrize(
    ("given", "pods", "begun", "phase"),
    [
        (
            job(suspend=True, queue="gpus"),
            [],
            False,
            Phase("queued", "suspended until queue gpus admits it"),
        ),
        (job("Created"), [pod("master-0")], False, Phase("queued", "1 of 2 pods are there")),
        (
            job("Created"),
            [pod("master-0", "Pending"), pod("worker-0", "Pending", scheduled=NO_NODE)],
            False,
            Phase("scheduling", "worker-0: 0/1 nodes: Insufficient nvidia.com/gpu."),
        ),
        (
            job("Created"),
            [
                pod(
                    "master-0",
                    "Pending",
                    state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
                ),
                pod("worker-0"),
            ],
            False,
            Phase("pulling", "master-0: image train:1: ImagePullBackOff: no such image"),
        ),
        (
            job("Created"),
            [
                pod("master-0", "Pending", state={"waiting": {"reason": "ContainerCreating"}}),
                pod("worker-0"),
            ],
            False,
            Phase("pulling", "master-0 is set up"),
        ),
        (
            job("Created"),
            [pod("master-0"), pod("worker-0", "Pending", init=RUNNING)],
            False,
            Phase("starting", "worker-0 waits for the master"),
        ),
        (
            job("Running"),
            [pod("master-0"), pod("worker-0")],
            False,
            Phase("starting", "all pods run; the processes meet"),
        ),
        (job("Running"), [pod("master-0"), pod("worker-0")], True, Phase("running")),
        (job("Restarting"), [pod("master-0")], True, Phase("restarting", "1 of 2 pods are there")),
        (
            job("Running"),
            [pod("master-0"), ended("worker-0", 137, "1")],
            True,
            Phase("restarting", "worker-0 has ended"),
        ),
        (job("Running", "Succeeded"), [pod("master-0")], True, Phase("succeeded")),
        (job("Failed"), [], True, Phase("failed", "j is Failed")),
    ],
)
def test_where_a_job_stands_is_kept_apart(
    given: Fields, pods: list[Fields], begun: bool, phase: Phase
) -> None:
    assert phase_of(PYTORCHJOB, given, pods, begun=begun) == phase


def test_the_first_pod_to_fail_is_named_but_one_short_of_memory_before_all() -> None:
    pods = [
        ended("master-0", 1, "2026-01-01T00:00:02Z"),
        ended("worker-0", 2, "2026-01-01T00:00:01Z"),
        pod("worker-1", state=RUNNING),
    ]
    assert [each.pod for each in ended_badly(PYTORCHJOB, pods)] == ["worker-0", "master-0"]
    short = ended("worker-2", 137, "2026-01-01T00:00:09Z", "OOMKilled")
    assert [each.pod for each in ended_badly(PYTORCHJOB, [*pods, short])] == [
        "worker-2",
        "worker-0",
        "master-0",
    ]


PLAN = make_plan(
    spec_from_parameter(
        {"name": "t", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}
    )
)


@pytest.mark.parametrize(
    ("found", "lines", "reported"),
    [
        (
            ended("worker-0", 137, "1", "OOMKilled"),
            [],
            "was killed for want of host memory (exit code 137): its limit is 1024Mi",
        ),
        (
            ended("worker-0", 137, "1"),
            ["step 4"],
            "training: worker-0 was killed by signal 9; its last line: step 4",
        ),
        (
            ended("master-0", 1, "1"),
            ["[rank0]: NCCL watchdog: collective timeout"],
            "its GPUs' network did not answer (NCCL)",
        ),
        (
            ended("worker-0", 1, "1"),
            ["socket.gaierror: Name or service not known"],
            "the master's name is not found: the cluster's DNS",
        ),
        (
            ended("master-0", 1, "1"),
            ["torch.OutOfMemoryError: CUDA out of memory"],
            "a GPU, or the page-locked memory of its host, is full: set training.micro_batch",
        ),
        (
            ended("master-0", 129, "1"),
            [
                (
                    "torch.distributed.DistStoreError: Timed out after 7 seconds waiting for "
                    "clients. 1/2 clients joined."
                )
            ],
            (
                "training: master-0 ended with exit code 129: the processes did not find each "
                "other in time"
            ),
        ),
        (
            ended("worker-0", 129, "1"),
            [
                (
                    "[c10d] The client socket has timed out after 6000ms while trying to connect "
                    "to (j-master-0, 23456)."
                )
            ],
            "the processes did not find each other in time: a pod that never came",
        ),
        (
            ended("worker-0", 1, "1"),
            [
                (
                    "RuntimeError: [gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting "
                    "1800000ms for recv operation to complete"
                )
            ],
            "another process did not answer in time (gloo)",
        ),
        (
            ended("master-0", 1, "1"),
            ["OSError: [Errno 28] No space left on device"],
            "the pod's disk is full: set cluster.work_claim",
        ),
        (
            ended("master-0", 129, "1"),
            ["step 4"],
            "ended with exit code 129, for it lost another process; its last line: step 4",
        ),
        (
            ended("master-0", 1, "1"),
            ["ValueError: bad", ""],
            "training: master-0 ended with exit code 1; its last line: ValueError: bad",
        ),
        (
            ended("master-0", 1, "1"),
            [
                "PermissionError: [Errno 13] Permission denied: '/models/model.safetensors'",
                (
                    "E1201 16:18:37.59 1 torch/distributed/elastic/multiprocessing/api.py:1002] "
                    "failed (exitcode: 1) local_rank: 0 (pid: 9) of binary: python"
                ),
            ],
            "its last line: PermissionError: [Errno 13] Permission denied: '/models/model.safet",
        ),
    ],
)
def test_how_a_pod_ended_is_a_sentence_that_says_what_to_do(
    found: Fields, lines: list[str], reported: str
) -> None:
    assert reported in sentence(ended_badly(PYTORCHJOB, [found])[0], PLAN, lines)


def test_pods_of_an_earlier_job_of_the_same_name_are_not_looked_at() -> None:
    def made(at: str) -> Fields:
        return {"metadata": {"creationTimestamp": at}}

    pods = [
        made("2026-11-25T12:00:04Z"),
        made("2026-11-25T12:00:05+00:00"),
        made("2026-11-25T12:00:05Z"),
        made("2026-11-25T12:00:06Z"),
    ]
    assert pods_of(made("2026-11-25T12:00:05Z"), pods) == pods[1:]


def trainjob_pod(index: int, phase: str = "Running", **status: object) -> Fields:
    found = {"name": "node", "image": "train:1", "restartCount": 0, **status}
    labels = {
        "jobset.sigs.k8s.io/jobset-name": "j",
        "batch.kubernetes.io/job-completion-index": str(index),
    }
    return {
        "metadata": {"name": f"j-node-0-{index}-x", "uid": f"uid-{index}", "labels": labels},
        "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "node"}]},
        "status": {"phase": phase, "conditions": [SCHEDULED], "containerStatuses": [found]},
    }


def trainjob(*conditions: str, suspend: bool = False) -> Fields:
    kept = job(*conditions)
    return {**kept, "spec": {"suspend": suspend, "trainer": {"numNodes": 2}}}


@pytest.mark.parametrize(
    ("given", "pods", "phase"),
    [
        (trainjob(suspend=True), [], Phase("queued", "suspended")),
        (trainjob(), [trainjob_pod(0)], Phase("queued", "1 of 2 pods are there")),
        (trainjob(), [trainjob_pod(0), trainjob_pod(1)], Phase("running")),
        (
            trainjob(),
            [
                trainjob_pod(0),
                trainjob_pod(
                    1, state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
                ),
            ],
            Phase("starting", "node-1: CrashLoopBackOff: back-off 10s"),
        ),
        (trainjob("Complete"), [trainjob_pod(0, "Succeeded")], Phase("succeeded")),
        (trainjob("Failed"), [], Phase("failed", "j is Failed")),
    ],
)
def test_a_trainjobs_own_fields_and_conditions_are_read(
    given: Fields, pods: list[Fields], phase: Phase
) -> None:
    assert phase_of(TRAINJOB, given, pods, begun=True) == phase


def test_a_container_started_anew_in_its_pod_is_a_life_of_its_own() -> None:
    last = {"terminated": {"exitCode": 143, "finishedAt": "1", "reason": "Error"}}
    restarted = trainjob_pod(1, restartCount=2, state={"running": {}}, lastState=last)
    (found,) = ended_badly(TRAINJOB, [trainjob_pod(0), restarted])
    assert (found.pod, found.life, found.final) == ("node-1", "uid-1/1", False)
    assert life_of(TRAINJOB, restarted) == "uid-1/2"
    assert not is_over(TRAINJOB, restarted)


@pytest.mark.parametrize(
    ("phase", "waited_s", "idle_s", "reported"),
    [
        (
            Phase("scheduling", "no GPU"),
            61,
            0,
            "cluster.queue_timeout_minutes: not all pods had a node after 1 minutes: no GPU",
        ),
        (Phase("pulling", "ErrImagePull"), 61, 0, None),
        (
            Phase("pulling", "ErrImagePull"),
            121,
            0,
            "cluster.start_timeout_minutes: training had not begun 2 minutes after the pods had",
        ),
        (Phase("running"), 9999, 179, None),
        (
            Phase("running"),
            9999,
            181,
            "cluster.stall_timeout_minutes: no step was made for 3 minutes",
        ),
    ],
)
def test_each_group_of_phases_has_a_deadline_of_its_own(
    phase: Phase, waited_s: float, idle_s: float, reported: str | None
) -> None:
    spec = ClusterSpec(queue_timeout_minutes=1, start_timeout_minutes=2, stall_timeout_minutes=3)
    found = overdue(phase, spec, waited_s=waited_s, idle_s=idle_s, uploads_s=0)
    assert found is None if reported is None else reported in (found or "")


def test_training_may_wait_for_two_uploads_beyond_the_time_without_a_step() -> None:
    time = TimePlan(
        seconds_per_step=1,
        low=1,
        high=1,
        parts={},
        hours=1,
        hours_low=1,
        hours_high=1,
        checkpoint_seconds=60,
        price=None,
        formula="",
        source="",
    )
    longer, spec = (
        uploads_s(PLAN.model_copy(update={"time": time})),
        ClusterSpec(stall_timeout_minutes=3),
    )
    assert (uploads_s(PLAN.model_copy(update={"time": None})), longer) == (0, 120)
    assert overdue(Phase("running"), spec, waited_s=0, idle_s=299, uploads_s=longer) is None
    found = overdue(Phase("running"), spec, waited_s=0, idle_s=301, uploads_s=longer)
    assert found == (
        "cluster.stall_timeout_minutes: no step was made for 3 minutes, nor in the 2 that "
        "uploads may take beside"
    )
