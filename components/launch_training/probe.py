"""The job of a plan -> a small one that only looks around where the workers will run: same account, environment, volumes, security.

As a job it needs no right that the launcher has not, and shows that the operator is at work; where there is no such kind, it is a pod.
`reap` removes one that was left behind by a killed doctor, as any job that nobody follows.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from components.launch_training.phases import NO_IMAGE
from components.shared.log import event_of
from components.shared.training_job import PYTORCHJOB_CONTAINER

Fields = dict[str, Any]
SMALL = {
    "requests": {"cpu": "50m", "memory": "384Mi", "ephemeral-storage": "128Mi"},
    "limits": {"cpu": "1", "memory": "384Mi"},
}
"""It took 83 MiB beside a store on the same machine; the file that it uploads counts too while it is in the page cache, 33 MiB."""
CANNOT_START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "InvalidImageName")
JOB_LABEL = "training.kubeflow.org/job-name"


@dataclass(frozen=True)
class Sources:
    """What the workers' environment is taken from, in order."""

    config_maps: tuple[str, ...]
    secrets: tuple[str, ...]

    def by_prefix(self) -> dict[str, Fields]:
        """A prefix of variables for each -> its entry of `envFrom`, by which the pod tells what it brings."""
        kinds = [("configMapRef", name) for name in self.config_maps] + [("secretRef", name) for name in self.secrets]
        return {
            f"HAGANE_SOURCE_{number}_": {"prefix": f"HAGANE_SOURCE_{number}_", kind: {"name": name, "optional": True}}
            for number, (kind, name) in enumerate(kinds)
        }


@dataclass(frozen=True)
class Probed:
    """How far the pod came, and what it told; `unheard`: it ended well, but nothing that it printed could be read."""

    stage: Literal["refused", "no pod", "no node", "no image", "not started", "unheard", "ran"]
    detail: str = ""
    environment: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Prefix of a source -> names of the variables it brings; of those that were told."""
    store: dict[str, bool] | None = None
    """What store_check says of a store that did all; None when it did not, or was not asked."""
    problems: tuple[str, ...] = ()


def probe_job(manifest: Fields, name: str, *, image: str, sources: Sources, store: str | None, seconds: int) -> Fields:
    """A job of one pod, gone by itself after `seconds` and some."""
    template = json.loads(json.dumps(manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]))
    pod = template["spec"]
    pod["terminationGracePeriodSeconds"] = 2
    pod["containers"] = [each for each in pod["containers"] if each["name"] == PYTORCHJOB_CONTAINER]
    (container,) = pod["containers"]
    container.setdefault("image", image)
    prefixes = sources.by_prefix()
    container["command"] = ["python", "-m", "components.train.store_check"]
    container["args"] = [word for prefix in prefixes for word in ("--prefix", prefix)] + (["--store", store] if store else [])
    container["envFrom"] = [*container.get("envFrom", []), *prefixes.values()]
    container["resources"] = SMALL
    labels = {key: value for key, value in manifest["metadata"]["labels"].items() if not key.startswith("kueue.x-k8s.io/")}
    # The pod stays when it is over: what it printed goes with it, and is read only then.
    policy = {"cleanPodPolicy": "None", "ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": seconds + 60}
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "nprocPerNode": "1",
            "runPolicy": policy,
            "pytorchReplicaSpecs": {"Master": {"replicas": 1, "restartPolicy": "Never", "template": template}},
        },
    }


def probe_pod(job: Fields) -> Fields:
    """The job's pod alone, for a cluster without such jobs."""
    template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    deadline = {"restartPolicy": "Never", "activeDeadlineSeconds": job["spec"]["runPolicy"]["activeDeadlineSeconds"]}
    name = job["metadata"]["name"]
    metadata = {**template["metadata"], "name": name, "labels": {**template["metadata"]["labels"], JOB_LABEL: name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**template["spec"], **deadline}}


def ended_early(pod: Fields) -> Probed | None:
    """Why the pod will never run, as the kubelet says; None while it may."""
    waiting = container_of(pod).get("state", {}).get("waiting", {})
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
    return Probed("not started", warnings[-1] if warnings else "it is still being set up, or its image pulled")


def container_of(pod: Fields) -> Fields:
    """Status of the container; empty before there is one."""
    return next((each for each in pod["status"].get("containerStatuses", []) if each["name"] == PYTORCHJOB_CONTAINER), {})


def heard(lines: list[str], pod: Fields) -> Probed:
    """What a pod that ran has told."""
    events = [event for line in lines if (event := event_of(line)) is not None]
    environment = {event["prefix"]: tuple(event["names"]) for event in events if event["event"] == "environment"}
    store = next(({"if_absent": event["if_absent"]} for event in events if event["event"] == "store_used"), None)
    problems = [problem for event in events if event["event"] == "failed" for problem in event["problems"]]
    state = container_of(pod).get("state", {}).get("terminated", {})
    if state.get("exitCode") and not problems:
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        return Probed("not started", f"{state.get('reason', 'ended')}, exit code {state['exitCode']}: {last.strip()[:200]}", environment)
    if not events:
        return Probed("unheard")
    return Probed("ran", environment=environment, store=store, problems=tuple(problems))
