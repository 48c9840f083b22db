"""A job, its pods and its events, as the Kubernetes API tells of them by watches that are begun again for ever."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import urllib3
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from components.launch_training.job.kinds import JobKind
from components.launch_training.job.phases import is_over
from components.launch_training.job.workload import NOT_ASKED, Queueing
from components.launch_training.kubernetes_api.workloads import poll_workload

Fields = dict[str, Any]
WATCH_S = 300
"""How long one watch lasts before it is begun again."""
REQUEST_S = 20
NO_ANSWER = (urllib3.exceptions.HTTPError, OSError)
NO_SENSE = (ValueError, LookupError, TypeError)
"""What an answer that was cut off, or is somebody else's, makes of the client."""
RELIST_PAUSE_S = 1.0
WORKLOAD_S = 3.0
"""How often Kueue's Workload of a job is asked for."""


@dataclass
class Seen:
    """The job and its pods as last heard of."""

    asked: bool = False
    """Whether the API has answered once."""
    job: Fields | None = None
    """None when there is none."""
    pods: dict[str, Fields] = field(default_factory=dict)
    """By uid."""
    ended: dict[str, Fields] = field(default_factory=dict)
    """Pods as they were when they had ended by themselves, by uid: the job's controller may put others in their places before anybody
    looks."""
    event_lists: dict[str, dict[str, Fields]] = field(default_factory=dict)
    """Of the job, of what stands between it and its pods, and of all pods: by what was asked for, then by uid."""
    queueing: Queueing = NOT_ASKED
    unheard_since: float | None = None
    """Since when, by time.monotonic, the API does not answer; None while it does."""
    over: bool = False
    """Set by who looks no more: the watches end."""

    @property
    def events(self) -> list[Fields]:
        return [event for found in list(self.event_lists.values()) for event in found.values()]


def watch_job(kind: JobKind, namespace: str, name: str, changes: "queue.Queue[Any]") -> Seen:
    """What is seen of the job from now on; a None is put into `changes` whenever that changes."""
    seen = Seen()
    objects, core = client.CustomObjectsApi(), client.CoreV1Api()
    by_name = f"metadata.name={name}"
    of_makers = [f"involvedObject.name={each}" for each in kind.makers(name)]

    def see_job(found: dict[str, Fields]) -> None:
        seen.job, seen.asked = next(iter(found.values()), None), True

    def see_pods(found: dict[str, Fields]) -> None:
        seen.pods = found
        over = {uid: pod for uid, pod in found.items() if is_over(kind, pod) and "deletionTimestamp" not in pod["metadata"]}
        seen.ended = seen.ended | over

    def see_events(asked: str) -> Callable[[dict[str, Fields]], None]:
        return lambda found: seen.event_lists.update({asked: found})

    watched: list[tuple[Callable[..., Any], dict[str, Any], Callable[[dict[str, Fields]], None]]] = [
        (objects.list_namespaced_custom_object, {**kind.where, "namespace": namespace, "field_selector": by_name}, see_job),
        (core.list_namespaced_pod, {"namespace": namespace, "label_selector": kind.pods(name)}, see_pods),
        *(
            (core.list_namespaced_event, {"namespace": namespace, "field_selector": asked}, see_events(asked))
            for asked in (*of_makers, "involvedObject.kind=Pod,type=Warning")
        ),
    ]
    for call, arguments, see in watched:
        threading.Thread(target=_watch_one, args=(call, arguments, see, seen, changes), daemon=True).start()
    threading.Thread(target=_poll_queue, args=(namespace, seen, changes), daemon=True).start()
    return seen


def _poll_queue(namespace: str, seen: Seen, changes: "queue.Queue[Any]") -> None:
    """Where the job stands in its queue, every WORKLOAD_S."""
    while not seen.over:
        if seen.job is not None:
            found = poll_workload(seen.job, namespace, before=seen.queueing)
            if found != seen.queueing:
                seen.queueing = found
                changes.put(None)
        time.sleep(WORKLOAD_S)


def _watch_one(
    call: Callable[..., Any],
    arguments: dict[str, Any],
    see: Callable[[dict[str, Fields]], None],
    seen: Seen,
    changes: "queue.Queue[Any]",
) -> None:
    """Lists, then watches from there; lists again when the watch is over, too old (410), or broken."""
    while not seen.over:
        try:
            listed = plain(call(**arguments, _request_timeout=REQUEST_S))
            objects = {item["metadata"]["uid"]: item for item in listed["items"]}
            seen.unheard_since = None
            see(dict(objects))
            changes.put(None)
            stream: Any = watch.Watch().stream(
                call, **arguments, resource_version=listed["metadata"]["resourceVersion"], timeout_seconds=WATCH_S,
                _request_timeout=(REQUEST_S, WATCH_S + REQUEST_S),
            )  # fmt: skip
            for change in stream:
                if seen.over:
                    return
                item = change["raw_object"]
                if change["type"] == "DELETED":
                    objects.pop(item["metadata"]["uid"], None)
                elif change["type"] != "BOOKMARK":
                    objects[item["metadata"]["uid"]] = item
                see(dict(objects))
                changes.put(None)
        except (ApiException, *NO_ANSWER, *NO_SENSE):
            if seen.unheard_since is None:
                seen.unheard_since = time.monotonic()
            changes.put(None)
        time.sleep(RELIST_PAUSE_S)


def plain(found: Any) -> Any:
    """Objects of the client's own classes as mappings."""
    return client.ApiClient().sanitize_for_serialization(found)
