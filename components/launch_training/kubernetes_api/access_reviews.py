"""Whether an account may do things, asked of the API server itself. Nothing is done but asking."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from components.launch_training.kubernetes_api.facts import NotAllowed, told
from components.shared.job.permissions import Permission

REQUEST_S = 20


def api_as(account: str | None, namespace: str) -> client.ApiClient:
    """A client that speaks as a service account of the namespace, which whoever asks must be allowed (verb impersonate); None: as who
    asks."""
    api = client.ApiClient()
    if account is not None:
        api.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:{account}")
    return api


def refused(api: client.ApiClient, wanted: Iterable[Permission], namespace: str) -> list[Permission]:
    """Those of the permissions that the client's account has not. Raises ApiException where it may not even ask."""
    reviews: Any = client.AuthorizationV1Api(api)
    missing: list[Permission] = []
    for each in wanted:
        resource, _, subresource = each.resource.partition("/")
        place = {"namespace": namespace, "verb": each.verb, "group": each.group, "name": each.name}
        place |= {"resource": resource, "subresource": subresource}
        review = {"spec": {"resourceAttributes": place}}
        if not reviews.create_self_subject_access_review(review, _request_timeout=REQUEST_S).status.allowed:
            missing.append(each)
    return missing


def rules_of(api: client.ApiClient, namespace: str) -> list[dict[str, Any]]:
    """All that the client's account may do with objects of the namespace."""
    reviews: Any = client.AuthorizationV1Api(api)
    answer = reviews.create_self_subject_rules_review({"spec": {"namespace": namespace}}, _request_timeout=REQUEST_S)
    status: Any = api.sanitize_for_serialization(answer.status)
    return status.get("resourceRules") or []


@contextmanager
def may_not_impersonate(account: str | None) -> Iterator[None]:
    """Errors of asking in another's name are ClusterErrors."""
    try:
        yield
    except ApiException as error:
        if error.status == 403 and account is not None:
            raise NotAllowed(
                f"whoever asks may not speak for {account} (verb impersonate); ask an admin, or for yourself: --launcher self"
            ) from None
        raise told(error, "ask what an account may") from None
