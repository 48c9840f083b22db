"""A job in a cluster and its pods, as the API tells them -> where the job stands, in words, and how
a pod ended."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from components.launch_training.job.kinds import JobKind
from components.shared.documents.plan import Plan
from components.shared.errors import PeerLost
from components.shared.job.endings import OUT_OF_MEMORY, ending_in, signal_of, starts_again

Fields = dict[str, Any]
PhaseName = Literal[
    "queued", "evicted", "preempted", "requeued", "admitted",
    "scheduling", "pulling", "starting", "running", "restarting", "succeeded", "failed",
]  # fmt: skip
GIB = 2**30
NO_IMAGE = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
)
TORCHRUN = "torch/distributed/elastic/"
"""In the lines with which torchrun says that a process ended; why stands before them."""

IS_SET_UP = "is set up"
ON_ITS_WAY = (None, "ContainerCreating", "PodInitializing")


@dataclass(frozen=True)
class Phase:
    name: PhaseName
    detail: str = ""


@dataclass(frozen=True)
class Ended:
    """How the training container of a pod ended badly."""

    pod: str
    uid: str
    life: str
    """The pod's uid and which of its container's lives it was: some kinds of job start a container
    anew inside its pod."""
    exit_code: int
    reason: str
    """Kubernetes' word for it, such as OOMKilled."""
    finished_at: str
    memory_limit: str

    @property
    def out_of_memory(self) -> bool:
        return self.reason == OUT_OF_MEMORY

    @property
    def final(self) -> bool:
        """Whether it was the program's own error, which would come again: components.train.node
        keeps 128 and more for all else."""
        return not starts_again(self.exit_code)


def phase_of(
    kind: JobKind,
    job: Fields,
    pods: list[Fields],
    *,
    begun: bool,
    complete: bool = False,
    admitted: bool = False,
) -> Phase:
    """Where the job stands. `begun`: its pods have spoken of training since they were last started;
    `complete`: all of them were there since then, so that one that is missing was lost; `admitted`:
    its queue has let it go."""
    conditions = conditions_of(job)
    if kind.succeeded in conditions:
        return Phase("succeeded")
    if "Failed" in conditions:
        return Phase("failed", conditions["Failed"].get("message", ""))
    if kind.is_suspended(job):
        queue = job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
        return Phase("queued", f"suspended until queue {queue} admits it" if queue else "suspended")
    wanted = kind.num_pods(job)
    alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    if len(alive) < wanted:
        there = f"{len(alive)} of {wanted} pods are there"
        if complete or "Restarting" in conditions:
            return Phase("restarting", there)
        return Phase("admitted" if admitted else "queued", there)
    return next(
        _waiting(kind, alive),
        Phase(
            "running" if begun else "starting", "" if begun else "all pods run; the processes meet"
        ),
    )


def is_finished(kind: JobKind, job: Fields) -> bool:
    return not conditions_of(job).keys().isdisjoint({kind.succeeded, "Failed"})


def pods_of(job: Fields, pods: list[Fields]) -> list[Fields]:
    """Without those of an earlier job of the same name, which may take a while to end."""
    return [pod for pod in pods if _created(pod) >= _created(job)]


def _created(what: Fields) -> str:
    """To the second: a list says +00:00 where a watch says Z."""
    return what["metadata"]["creationTimestamp"][:19]


def conditions_of(job: Fields) -> Fields:
    """Those that hold, by their type."""
    return {
        each["type"]: each
        for each in job.get("status", {}).get("conditions", [])
        if each["status"] == "True"
    }


def _waiting(kind: JobKind, pods: list[Fields]) -> Iterator[Phase]:
    for pod in pods:
        reason = next(
            (
                each
                for each in pod["status"].get("conditions", [])
                if each["type"] == "PodScheduled" and each["status"] == "False"
            ),
            None,
        )
        if reason is not None:
            yield Phase(
                "scheduling",
                (
                    f"{name_of(kind, pod)}: "
                    f"{reason.get('message') or reason.get('reason', 'no node yet')}"
                ),
            )
    for pod in pods:
        for status in (
            *pod["status"].get("initContainerStatuses", []),
            *pod["status"].get("containerStatuses", []),
        ):
            waiting = status.get("state", {}).get("waiting", {})
            found = f"{waiting.get('reason')}: {waiting.get('message', '')}"
            if waiting.get("reason") in NO_IMAGE:
                yield Phase("pulling", f"{name_of(kind, pod)}: image {status['image']}: {found}")
            elif waiting and waiting.get("reason") not in ON_ITS_WAY:
                yield Phase("starting", f"{name_of(kind, pod)}: {found}")
    for pod in pods:
        if pod["status"].get("phase", "Pending") == "Pending":
            running = any(
                "running" in each.get("state", {})
                for each in pod["status"].get("initContainerStatuses", [])
            )
            yield (
                Phase("starting", f"{name_of(kind, pod)} waits for the master")
                if running
                else Phase("pulling", f"{name_of(kind, pod)} {IS_SET_UP}")
            )
        elif pod["status"]["phase"] == "Failed":
            yield Phase("restarting", f"{name_of(kind, pod)} has ended")


def name_of(kind: JobKind, pod: Fields) -> str:
    """`master-0`, `worker-3`, `node-3`: what sets a job's pods apart."""
    return kind.pod_name(pod["metadata"]) or pod["metadata"]["name"]


def life_of(kind: JobKind, pod: Fields) -> str:
    """As `Ended.life`, of now."""
    return f"{pod['metadata']['uid']}/{_container(kind, pod).get('restartCount', 0)}"


def _container(kind: JobKind, pod: Fields) -> Fields:
    """Status of the training container; empty before there is one."""
    return next(
        (
            each
            for each in pod["status"].get("containerStatuses", [])
            if each["name"] == kind.container
        ),
        {},
    )


def is_over(kind: JobKind, pod: Fields) -> bool:
    """Nothing runs in it any more, nor will."""
    ended = "terminated" in _container(kind, pod).get("state", {})
    return (ended and pod["spec"].get("restartPolicy") == "Never") or pod["status"].get(
        "phase"
    ) in ("Succeeded", "Failed")


def has_log(kind: JobKind, pod: Fields) -> bool:
    state = _container(kind, pod).get("state", {})
    return "running" in state or "terminated" in state


def ended_badly(kind: JobKind, pods: list[Fields]) -> list[Ended]:
    """Lives of training containers, each pod's last, that ended with another code than 0, the first
    to end first; one short of memory before all."""
    found: list[Ended] = []
    for pod in pods:
        status, uid = _container(kind, pod), pod["metadata"]["uid"]
        now, before = (status.get(each, {}).get("terminated") for each in ("state", "lastState"))
        state, life = now or before, status.get("restartCount", 0) - (0 if now else 1)
        if state and state["exitCode"]:
            spec = next(
                each for each in pod["spec"]["containers"] if each["name"] == kind.container
            )
            found.append(
                Ended(
                    name_of(kind, pod),
                    uid,
                    f"{uid}/{life}",
                    state["exitCode"],
                    state.get("reason", ""),
                    state.get("finishedAt") or "",
                    spec.get("resources", {}).get("limits", {}).get("memory", "none"),
                )
            )
    return sorted(found, key=lambda each: (not each.out_of_memory, each.finished_at))


def sentence(ended: Ended, plan: Plan, lines: list[str]) -> str:
    """What became of a pod, and what to do. `lines`: the last that it printed."""
    if ended.out_of_memory:
        planned = f"{plan.memory.host_bytes / GIB:.1f} GiB for a node"
        return (
            f"training: {ended.pod} was killed for want of host memory (exit code "
            f"{ended.exit_code}): its limit is {ended.memory_limit}; the plan counted {planned}; "
            "raise hardware.memory_margin, or shorten data.row_tokens"
        )
    known = ending_in(lines)
    if known is not None:
        return f"training: {ended.pod} ended with exit code {ended.exit_code}: {known.meaning}"
    signal = signal_of(ended.exit_code)
    if signal is None:
        how = f"ended with exit code {ended.exit_code}"
    else:
        how = f"was killed by signal {signal}"
    if ended.exit_code == PeerLost.exit_code:
        how = f"ended with exit code {ended.exit_code}, for it lost another process"
    said = (line.strip() for line in reversed(lines) if TORCHRUN not in line)
    last = next(filter(None, said), "none")
    return f"training: {ended.pod} {how}; its last line: {last[:300]}"
