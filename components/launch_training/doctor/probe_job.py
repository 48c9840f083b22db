"""The job of a plan -> a small one that only looks around where the workers will run: same account,
environment, volumes, security.

As a job of the spec's own kind it needs no right that the launcher has not, and shows that its
controller runs; where there is no such kind, it is a pod. `reap` removes one that was left behind
by a killed doctor, as any job that nobody follows.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from components.launch_training.job.kinds import JobKind
from components.launch_training.job.phases import NO_IMAGE
from components.launch_training.job.worker_pod import worker_template
from components.shared.events import events_in
from components.shared.job.training_job import SOURCE

Fields = dict[str, Any]
SMALL = {
    "requests": {"cpu": "50m", "memory": "384Mi", "ephemeral-storage": "128Mi"},
    "limits": {"cpu": "1", "memory": "384Mi"},
}
"""It took 83 MiB beside a store on the same machine; the file that it uploads counts too while it
is in the page cache, 33 MiB."""
CANNOT_START = (
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "InvalidImageName",
)
CHECK = ["python", "-m", "components.train.store_check"]
QUEUE_LABELS = "kueue.x-k8s.io/"


@dataclass(frozen=True)
class Sources:
    """What the workers' environment is taken from, in order."""

    config_maps: tuple[str, ...]
    secrets: tuple[str, ...]

    def by_prefix(self) -> dict[str, Fields]:
        """A prefix of variables for each -> its entry of `envFrom`, by which the pod tells what it
        brings."""
        kinds = [("configMapRef", name) for name in self.config_maps] + [
            ("secretRef", name) for name in self.secrets
        ]
        return {
            f"{SOURCE}{number}_": {
                "prefix": f"{SOURCE}{number}_",
                kind: {"name": name, "optional": True},
            }
            for number, (kind, name) in enumerate(kinds)
        }


@dataclass(frozen=True)
class Probed:
    """How far the pod came, and what it reported; `unheard`: it succeeded, but nothing that it
    printed could be read."""

    stage: Literal["refused", "no pod", "no node", "no image", "not started", "unheard", "ran"]
    detail: str = ""
    environment: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Prefix of a source -> names of the variables it brings; of those that were reported."""
    store: dict[str, bool] | None = None
    """What store_check says of a store that did all; None when it did not, or was not asked."""
    problems: tuple[str, ...] = ()


def probe_job(
    manifest: Fields,
    kind: JobKind,
    name: str,
    *,
    image: str,
    sources: Sources,
    store: str | None,
    seconds: int,
) -> Fields:
    """A job of one pod, gone by itself after `seconds` and some."""
    if kind.name == "TrainJob":
        return _probe_trainjob(manifest, name, image=image, store=store, seconds=seconds)
    template = _probe_template(manifest, kind, image=image, sources=sources, store=store)
    # The pod stays when it is over: what it printed goes with it, and is read only then.
    policy = {
        "cleanPodPolicy": "None",
        "ttlSecondsAfterFinished": 60,
        "activeDeadlineSeconds": seconds + 60,
    }
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": _probe_metadata(manifest, name),
        "spec": {
            "nprocPerNode": "1",
            "runPolicy": policy,
            "pytorchReplicaSpecs": {
                "Master": {"replicas": 1, "restartPolicy": "Never", "template": template}
            },
        },
    }


def _probe_trainjob(
    manifest: Fields, name: str, *, image: str, store: str | None, seconds: int
) -> Fields:
    """Of the same runtime and with the same patch as the workers'; sources of the environment are
    files there."""
    job = json.loads(json.dumps(manifest))
    trainer = job["spec"]["trainer"]
    trainer |= {
        "numNodes": 1,
        "numProcPerNode": 1,
        "command": CHECK,
        "args": _arguments([], store),
        "resourcesPerNode": SMALL,
    }
    trainer.setdefault("image", image)
    job["spec"].pop("suspend", None)
    job["spec"]["activeDeadlineSeconds"] = seconds + 60
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": _probe_metadata(manifest, name),
        "spec": job["spec"],
    }


def _probe_metadata(manifest: Fields, name: str) -> Fields:
    labels = {
        key: value
        for key, value in manifest["metadata"]["labels"].items()
        if not key.startswith(QUEUE_LABELS)
    }
    return {"name": name, "labels": labels}


def _probe_template(
    manifest: Fields, kind: JobKind, *, image: str, sources: Sources, store: str | None
) -> Fields:
    template = worker_template(manifest, kind)
    pod = template["spec"]
    pod["terminationGracePeriodSeconds"] = 2
    pod["containers"] = [each for each in pod["containers"] if each["name"] == kind.container]
    (container,) = pod["containers"]
    container.setdefault("image", image)
    if kind.name != "TrainJob":
        prefixes = sources.by_prefix()
    else:
        prefixes = {}
    container["command"], container["args"] = CHECK, _arguments(list(prefixes), store)
    if prefixes:
        container["envFrom"] = [*container.get("envFrom", []), *prefixes.values()]
    container["resources"] = SMALL
    return template


def _arguments(prefixes: list[str], store: str | None) -> list[str]:
    words = [word for prefix in prefixes for word in ("--prefix", prefix)]
    if store is None:
        return words
    return [*words, "--store", store]


def queued_probe(job: Fields, kind: JobKind, queue: str) -> Fields:
    """The job as one that waits in a queue, by which it is seen whether Kueue looks at this kind of
    job."""
    queued = json.loads(json.dumps(job))
    queued["metadata"]["labels"][f"{QUEUE_LABELS}queue-name"] = queue
    if kind.name == "TrainJob":
        policy = queued["spec"]
    else:
        policy = queued["spec"]["runPolicy"]
    policy["suspend"] = True
    return queued


def probe_pod(
    manifest: Fields,
    kind: JobKind,
    name: str,
    *,
    image: str,
    sources: Sources,
    store: str | None,
    seconds: int,
) -> Fields:
    """The job's pod alone, for a cluster without such jobs."""
    template = _probe_template(manifest, kind, image=image, sources=sources, store=store)
    found_by = dict(each.split("=") for each in kind.pods(name).split(","))
    metadata = {
        **template["metadata"],
        "name": name,
        "labels": {**template["metadata"]["labels"], **found_by},
    }
    deadline = {"restartPolicy": "Never", "activeDeadlineSeconds": seconds + 60}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**template["spec"], **deadline},
    }


def ended_early(kind: JobKind, pod: Fields) -> Probed | None:
    """Why the pod will never run, as the kubelet says; None while it may."""
    waiting = container_of(kind, pod).get("state", {}).get("waiting", {})
    reason = waiting.get("reason")
    if reason in NO_IMAGE:
        return Probed("no image", f"{reason}: {waiting.get('message', '')}")
    if reason in CANNOT_START:
        return Probed("not started", f"{reason}: {waiting.get('message', '')}")
    return None


def still_waiting(pod: Fields | None, warnings: list[str]) -> Probed:
    """Where a pod stood when it was given up."""
    if pod is None:
        return Probed("no pod", warnings[-1] if warnings else "")
    for each in pod["status"].get("conditions", []):
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return Probed("no node", each.get("message") or each.get("reason", ""))
    return Probed(
        "not started", warnings[-1] if warnings else "it is still being set up, or its image pulled"
    )


def container_of(kind: JobKind, pod: Fields) -> Fields:
    """Status of the container; empty before there is one."""
    return next(
        (
            each
            for each in pod["status"].get("containerStatuses", [])
            if each["name"] == kind.container
        ),
        {},
    )


def has_run(kind: JobKind, pod: Fields) -> bool:
    """Whether the container has ended once: a runtime may start it anew."""
    status = container_of(kind, pod)
    return any("terminated" in status.get(each, {}) for each in ("state", "lastState"))


def heard(kind: JobKind, lines: list[str], pod: Fields) -> Probed:
    """What a pod that ran has reported."""
    events = list(events_in(lines))
    environment = {
        event["prefix"]: tuple(event["names"])
        for event in events
        if event["event"] == "environment"
    }
    store = next(
        ({"if_absent": event["if_absent"]} for event in events if event["event"] == "store_used"),
        None,
    )
    problems = [
        problem for event in events if event["event"] == "failed" for problem in event["problems"]
    ]
    status = container_of(kind, pod)
    state = status.get("state", {}).get("terminated") or status.get("lastState", {}).get(
        "terminated", {}
    )
    if state.get("exitCode") and not problems:
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        return Probed(
            "not started",
            f"{state.get('reason', 'ended')}, exit code {state['exitCode']}: {last.strip()[:200]}",
            environment,
        )
    if not events:
        return Probed("unheard")
    return Probed("ran", environment=environment, store=store, problems=tuple(problems))
