"""What a cluster says of itself when asked: versions, kinds, accounts, nodes, queues; and a pod
made by hand. For `doctor` alone."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any

import urllib3
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.utils import parse_quantity

from components.launch_training.job.events import event_time
from components.launch_training.job.kinds import TRAINJOB
from components.launch_training.job.node_capacity import NodeFacts
from components.launch_training.kubernetes_api.workloads import kueue_version
from components.shared.errors import ClusterError

Fields = dict[str, Any]
FIRST_ANSWER_S = 5
REQUEST_S = 20


class NotAllowed(ClusterError):
    """Whoever asks may not know this."""


def server_version() -> str:
    """The API server's version. Asked once, for seconds: raises ClusterError when it does not
    answer."""
    settings: Any = client.Configuration.get_default_copy()
    settings.retries = 0
    try:
        answer: Any = client.VersionApi(client.ApiClient(settings)).get_code(
            _request_timeout=FIRST_ANSWER_S
        )
        return f"{answer.git_version} at {settings.host}"
    except ApiException as error:
        raise ClusterError(
            f"{settings.host} answers {error.status} {error.reason}; renew the kubeconfig or the "
            "pod's account"
        ) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        cause = str(getattr(error, "reason", None) or error).rpartition(": ")[2][:120]
        raise ClusterError(
            f"the API server at {settings.host} does not answer ({cause}); check KUBECONFIG, its "
            "context, VPN and network"
        ) from None


def served(group: str, version: str, plural: str) -> bool:
    """Whether the cluster has such objects."""
    with _asked("look up", f"{group}/{version}"):
        try:
            found: Any = client.CustomObjectsApi().get_api_resources(
                group, version, _request_timeout=REQUEST_S
            )
        except ApiException as error:
            if error.status == 404:
                return False
            raise
        return any(each.name == plural for each in found.resources)


def kueue() -> str | None:
    """As cluster_queue.kueue_version, its errors as ClusterErrors."""
    with _asked("look up", "kueue.x-k8s.io"):
        return kueue_version()


def versions_of(group: str) -> list[str]:
    """Versions of a group that the cluster has, such as those of an older operator."""
    with _asked("look up", group):
        answer: Any = client.ApisApi().get_api_versions(_request_timeout=REQUEST_S)
        return [
            each.version
            for found in answer.groups
            if found.name == group
            for each in found.versions
        ]


def has_account(name: str, namespace: str) -> bool:
    with _asked("get", "serviceaccounts"):
        return (
            _is_there(
                lambda: client.CoreV1Api().read_namespaced_service_account(
                    name, namespace, _request_timeout=REQUEST_S
                )
            )
            is not None
        )


def local_queue(name: str, namespace: str, version: str) -> Fields | None:
    """Kueue's LocalQueue; None when there is none."""
    where = {"group": "kueue.x-k8s.io", "version": version, "plural": "localqueues"}
    with _asked("get", "localqueues"):
        call = client.CustomObjectsApi().get_namespaced_custom_object
        return _is_there(
            lambda: call(**where, namespace=namespace, name=name, _request_timeout=REQUEST_S)
        )


def runtime(kind: str, name: str, namespace: str) -> Fields | None:
    """Trainer's runtime of this name, of the namespace or of the cluster; None when there is
    none."""
    where = {
        "group": TRAINJOB.group,
        "version": TRAINJOB.version,
        "plural": f"{kind.lower()}s",
        "name": name,
    }
    objects: Any = client.CustomObjectsApi()
    with _asked("get", where["plural"]):
        if kind == "TrainingRuntime":
            return _is_there(
                lambda: objects.get_namespaced_custom_object(
                    **where, namespace=namespace, _request_timeout=REQUEST_S
                )
            )
        return _is_there(
            lambda: objects.get_cluster_custom_object(**where, _request_timeout=REQUEST_S)
        )


def cluster_queue(name: str, version: str) -> Fields | None:
    """Kueue's ClusterQueue; None when there is none."""
    where = {"group": "kueue.x-k8s.io", "version": version, "plural": "clusterqueues", "name": name}
    with _asked("get", "clusterqueues"):
        call = client.CustomObjectsApi().get_cluster_custom_object
        return _is_there(lambda: call(**where, _request_timeout=REQUEST_S))


def argo_defaults(namespaces: tuple[str, ...]) -> Fields | None:
    """What Argo's controller puts into every template (templateDefaults of its config map), from
    the first namespace that has it.

    None where none of them has.
    """
    for namespace in namespaces:
        settings = _config_map("workflow-controller-configmap", namespace)
        if settings is not None:
            whole = yaml.safe_load(settings.get("config", "")) or {}
            written = settings.get("templateDefaults")
            return (yaml.safe_load(written) if written else whole.get("templateDefaults")) or {}
    return None


def _config_map(name: str, namespace: str) -> dict[str, str] | None:
    with _asked("get", f"configmaps {name}"):
        found = _is_there(
            lambda: client.CoreV1Api().read_namespaced_config_map(
                name, namespace, _request_timeout=REQUEST_S
            )
        )
        if found is None:
            return None
        return found.data or {}


def nodes() -> list[NodeFacts]:
    with _asked("list", "nodes"):
        return [
            _node(each)
            for each in _plain(client.CoreV1Api().list_node(_request_timeout=REQUEST_S))["items"]
        ]


def _node(node: Fields) -> NodeFacts:
    spec = node["spec"]
    allocatable = quantities(node["status"].get("allocatable", {}))
    return NodeFacts(
        node["metadata"]["name"],
        allocatable,
        node["metadata"].get("labels", {}),
        tuple(spec.get("taints", [])),
        bool(spec.get("unschedulable")),
    )


def quantities(written: dict[str, str]) -> dict[str, Decimal]:
    """Kubernetes' way to write amounts (`500m`, `3Gi`) as numbers."""
    return {name: parse_quantity(amount) for name, amount in written.items()}


def warnings_about(name: str, namespace: str) -> list[str]:
    """What the cluster complains of about an object, the newest last."""
    with _asked("list", "events"):
        selector = f"type=Warning,involvedObject.name={name}"
        found = _plain(
            client.CoreV1Api().list_namespaced_event(
                namespace, field_selector=selector, _request_timeout=REQUEST_S
            )
        )
        return [each["message"] for each in sorted(found["items"], key=event_time)]


def make_pod(manifest: Fields, namespace: str) -> None:
    with _asked("create", "pods"):
        client.CoreV1Api().create_namespaced_pod(namespace, manifest, _request_timeout=REQUEST_S)


def delete_pod(name: str, namespace: str) -> None:
    with _asked("delete", "pods"):
        _is_there(
            lambda: client.CoreV1Api().delete_namespaced_pod(
                name, namespace, _request_timeout=REQUEST_S
            )
        )


def _is_there(call: Any) -> Any:
    try:
        return call()
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def _plain(found: Any) -> Any:
    return client.ApiClient().sanitize_for_serialization(found)


@contextmanager
def _asked(verb: str, what: str) -> Iterator[None]:
    """Errors of the API inside are ClusterErrors, one a line."""
    try:
        yield
    except ApiException as error:
        raise cluster_error(error, f"{verb} {what}") from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterError(
            f"cannot {verb} {what}: no answer ({str(error).splitlines()[0][:120]})"
        ) from None


def cluster_error(error: ApiException, doing: str) -> ClusterError:
    if error.status == 403:
        return NotAllowed(f"whoever asks may not {doing}")
    said = message_of(error) or f"{error.status} {error.reason}"
    return ClusterError(f"cannot {doing}: {said}")


def message_of(error: ApiException) -> str:
    """What the API server says in a Status object; empty where it answered with none."""
    with suppress(ValueError, TypeError, KeyError):
        return json.loads(error.body or "")["message"]
    return ""
