"""The Kubernetes API, as far as a launcher needs it. Only modules of this folder
import `kubernetes`. Objects are plain mappings."""

import os
import queue
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from components.launch_training.job.kinds import PYTORCHJOB, JobKind
from components.launch_training.job.permissions import needed
from components.launch_training.kubernetes_api.access_reviews import refused
from components.launch_training.kubernetes_api.dropped_fields import dropped, dropped_problem
from components.launch_training.kubernetes_api.facts import message_of
from components.launch_training.kubernetes_api.watch import (
    NO_ANSWER,
    RELIST_PAUSE_S,
    REQUEST_S,
    WATCH_S,
    Seen,
    plain,
    watch_job,
)
from components.shared.errors import ClusterError, NoCluster
from components.shared.job.permissions import Permission, granted_by, refusals
from components.shared.printable import shown
from components.shared.spec.cluster import ClusterSpec
from components.shared.store.patience import patiently

Fields = dict[str, Any]
BUSY = (429, 500, 502, 503, 504)
PATIENCE_S = 60.0
"""How long one question is asked again while the API server does not answer or is busy, as when it
starts anew: outside a pipeline's step, which waits longer (shared/patience.py), and to delete a
job, since whoever ends a step may kill it soon."""
TOKEN_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ADMISSION = re.compile(
    "admission webhook|exceeded quota|violates PodSecurity|ValidatingAdmissionPolicy"
)
"""In a refusal (403) that is no matter of rights."""
RUNTIME_MISSING = re.compile(r"runtime.*not found|not found.*runtime", re.IGNORECASE | re.DOTALL)
STAMPED = re.compile(r"\d{4}-\d\d-\d\dT")
LOST_LINES_S = 5.0
"""How far back a log that was broken off is asked for again; lines that were read are known by
their time."""
UNANSWERED_S, UNANSWERED_PAUSE_S = 3.0, 0.2
"""How long, and how often, a job is looked for whose creation was broken off before the API server
answered."""
LAST_READS = 5
"""How often the log of a container that is over is asked for, while the API server does not
answer."""


class Cluster:
    """One kind of job in one namespace."""

    def __init__(self, namespace: str | None = None, kind: JobKind = PYTORCHJOB) -> None:
        """Raises NoCluster when there is neither a pod's account nor a kubeconfig."""
        try:
            config.load_incluster_config()
            own = (TOKEN_FOLDER / "namespace").read_text()
        except config.ConfigException:
            try:
                config.load_kube_config()
                own = config.list_kube_config_contexts()[1]["context"].get("namespace", "default")
            except (config.ConfigException, OSError, KeyError, TypeError) as error:
                found = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
                asked = os.environ.get("KUBECONFIG")
                if asked:
                    where = f"KUBECONFIG is {shown(asked)}: "
                else:
                    where = ""
                raise NoCluster(
                    f"backend: no cluster: {where}{found}. Fix: set KUBECONFIG to a file that is "
                    "there, run in a pod, or set backend: local"
                ) from None
        self.kind, self.namespace = kind, namespace or own
        self._objects, self._core = client.CustomObjectsApi(), client.CoreV1Api()
        self._unanswered = False
        """Whether a job was asked for, and no answer came."""

    def job(self, name: str) -> Fields | None:
        try:
            return self._ask(
                "get",
                lambda: self._objects.get_namespaced_custom_object(
                    **self._jobs, name=name, _request_timeout=REQUEST_S
                ),
            )
        except ApiException as error:
            if error.status == 404 and self.kind.plural in str(error.body):
                return None
            raise self._refused("get", error) from None

    def jobs(self, labels: dict[str, str]) -> list[Fields]:
        """Those with all these labels: none where the cluster does not know the kind."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        call = partial(
            self._objects.list_namespaced_custom_object,
            **self._jobs,
            label_selector=selector,
            _request_timeout=REQUEST_S,
        )
        try:
            return self._ask("list", call)["items"]
        except ApiException as error:
            if error.status == 404:
                return []
            raise self._refused("list", error) from None

    def check_fields(self, manifest: Fields, spec: ClusterSpec) -> None:
        """Asks the API server what it would make of the manifest. Raises ClusterError with every
        field that it would refuse or drop."""
        accepted = self._create(manifest, dry_run="All")
        if accepted is not None:
            problems = [
                dropped_problem(place, manifest, self.kind, spec)
                for place in dropped(manifest, accepted)
            ]
            if problems:
                raise ClusterError(*problems)

    def check_permissions(self) -> None:
        """Before any is needed: without `watch` the launcher would stand still, without `patch` its
        job would be reaped.

        Raises ClusterError with all that are missing.
        """
        missing: list[Permission] = []
        with suppress(ApiException):  # who may not even ask is reported by the first real request
            missing = self._ask(
                "ask about",
                lambda: refused(self._core.api_client, needed(self.kind), self.namespace),
            )
        if missing:
            raise ClusterError(*refusals(missing, self.namespace))

    def create(self, manifest: Fields) -> bool:
        """The job is there; False where one of its name was already."""
        return self._create(manifest) is not None

    def _create(self, manifest: Fields, **how: Any) -> Fields | None:
        call = partial(
            self._objects.create_namespaced_custom_object,
            **self._jobs,
            body=manifest,
            _request_timeout=REQUEST_S,
            **how,
        )
        self._unanswered = not how
        try:
            created = self._ask("create", call)
        except ApiException as error:
            self._unanswered = False
            if error.status == 409 and "AlreadyExists" in str(error.body):
                return None
            raise self._refused("create", error) from None
        self._unanswered = False
        return created

    def annotate(self, name: str, annotations: dict[str, str] | dict[str, str | None]) -> None:
        """None takes one away. Nothing happens when the API does not answer, or there is no job: it
        is asked again, or watched."""
        body = {"metadata": {"annotations": annotations}}
        with suppress(ApiException, *NO_ANSWER):
            self._objects.patch_namespaced_custom_object(
                **self._jobs, name=name, body=body, _request_timeout=REQUEST_S
            )

    def delete(self, name: str) -> None:
        """The job is gone or going, with its pods. One that was asked for without an answer, as
        when a signal came, may only appear now: it is waited for."""
        end = time.monotonic() + UNANSWERED_S
        while not self._delete(name) and self._unanswered and time.monotonic() < end:
            time.sleep(UNANSWERED_PAUSE_S)

    def _delete(self, name: str) -> bool:
        """Whether there was such a job."""
        call = partial(
            self._objects.delete_namespaced_custom_object,
            **self._jobs,
            name=name,
            propagation_policy="Background",
            _request_timeout=REQUEST_S,
        )
        try:
            self._ask("delete", call, deadline_s=PATIENCE_S)
        except ApiException as error:
            if error.status != 404:
                raise self._refused("delete", error) from None
            return False
        return True

    def deleted_by_hand(self, name: str) -> str:
        """The command by which a person deletes the job."""
        return f"kubectl -n {self.namespace} delete {self.kind.plural} {name}"

    def pods(self, name: str) -> list[Fields]:
        call = partial(
            self._core.list_namespaced_pod,
            self.namespace,
            label_selector=self.kind.pods(name),
            _request_timeout=REQUEST_S,
        )
        try:
            return plain(self._ask("list", call))["items"]
        except ApiException as error:
            raise self._refused("list", error) from None

    @property
    def _jobs(self) -> dict[str, str]:
        return {**self.kind.where, "namespace": self.namespace}

    def _ask(self, verb: str, call: Callable[[], Any], *, deadline_s: float | None = None) -> Any:
        """What the API server answers. Raises ClusterError when it does not in time, ApiException
        for what it refuses."""
        try:
            return patiently(
                call,
                what="API server",
                may_pass=_is_away,
                deadline_s=deadline_s,
                otherwise_s=PATIENCE_S,
            )
        except NO_ANSWER as error:
            found = str(error).splitlines()[0][:200]
            raise ClusterError(
                f"{self._where(verb)}: the API server does not answer ({found})"
            ) from None

    def _refused(self, verb: str, error: ApiException) -> ClusterError:
        return ClusterError(f"{self._where(verb)}: {_answer(error, verb, self.kind)}")

    def _where(self, verb: str) -> str:
        return f"cluster: cannot {verb} {self.kind.plural} in namespace {self.namespace}"

    def watch(self, name: str, changes: "queue.Queue[Any]") -> Seen:
        """What is seen of the job from now on; a None is put into `changes` whenever that
        changes."""
        return watch_job(self.kind, self.namespace, name, changes)

    def follow_log(self, pod: str, *, ended: Callable[[], bool], only_new: bool) -> Iterator[str]:
        """Every line of a pod's log as it comes, to its end; broken connections are taken up again.
        `ended`: the container is over."""
        after, same, since = (
            "",
            0,
            1 if only_new else None,
        )  # same: how many lines were reported that have the time `after`
        last_reads = 0
        while True:
            over, before, again = ended(), after, same
            try:
                for line in self._log_lines(pod, since):
                    stamp, _, text = line.partition(" ")
                    # Without a time it is not the pod that speaks but the kubelet, of a container
                    # that is gone.
                    if not STAMPED.match(stamp) or stamp < before:
                        continue
                    if stamp == before and again:
                        # reported before the log broke off: lines that were written at once share
                        # their time
                        again -= 1
                        continue
                    if stamp >= after:  # a line of stderr may come after a later one of stdout
                        after, same = stamp, same + 1 if stamp == after else 1
                    yield text
                whole = True
            except ApiException as error:
                whole = error.status not in BUSY  # a pod that is gone has no log any more
            except NO_ANSWER:
                whole = False
            last_reads += over
            if over and (whole or last_reads == LAST_READS):
                return
            if after:
                since = max(1, round(LOST_LINES_S + _age_s(after)))
            time.sleep(RELIST_PAUSE_S)

    def _log_lines(self, pod: str, since_s: int | None) -> Iterator[str]:
        """Each with its time, until the log ends or the connection does."""
        answer = self._core.read_namespaced_pod_log(
            pod,
            self.namespace,
            container=self.kind.container,
            follow=True,
            timestamps=True,
            since_seconds=since_s,
            _preload_content=False,
            _request_timeout=(REQUEST_S, WATCH_S),
        )
        return _lines(answer)


def _is_away(error: BaseException) -> bool:
    return isinstance(error, NO_ANSWER) or (
        isinstance(error, ApiException) and error.status in BUSY
    )


def _lines(answer: Any) -> Iterator[str]:
    rest = b""
    for chunk in answer.stream(amt=None, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _age_s(stamp: str) -> float:
    """Seconds since a time stamp of a log, such as 2026-11-24T20:45:33.123456789Z; a node tells its
    own zone's time, as ….123+09:00."""
    return (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()


def _answer(error: ApiException, verb: str, kind: JobKind) -> str:
    message = message_of(error)
    if error.status == 401:
        return "the credentials are not accepted (401); renew the kubeconfig or the pod's account"
    if error.status == 403 and ADMISSION.search(message):
        return f"{message}{_admission_fix(message)}"
    if error.status == 403:
        role = granted_by(Permission(verb, kind.group, kind.plural))
        return (
            f"not allowed (403); the launcher's account needs the Role of {role} "
            f"({message or f'verb {verb}'})"
        )
    if error.status == 404 and message.startswith("namespaces "):
        return f"{message}; set cluster.namespace to one that is there"
    if error.status == 404:
        return (
            f"there is no {kind.name} in this cluster (404). Fix: install {kind.installed_by}, or "
            "set another backend"
        )
    return message or f"{error.status} {error.reason}"


def _admission_fix(message: str) -> str:
    if RUNTIME_MISSING.search(message):
        return (
            ". Fix: kubectl apply -n NAMESPACE -f k8s/overlays/trainjob/runtime.yaml, "
            "or set cluster.runtime to a ClusterTrainingRuntime that is there"
        )
    if "exceeded quota" in message:
        return ". Fix: wait until other jobs end, or have the ResourceQuota raised"
    return ""
