"""What this pod's own account may do, asked of the API server without a client library.

For the first step of a run, whose image holds none. Outside a pod there is nobody to ask.
"""

import json
import os
import ssl
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from urllib.error import HTTPError

from components.shared.job.permissions import Permission
from components.shared.store.patience import patiently

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts a pod's token, its namespace and the API server's certificate."""
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
REQUEST_S = 10.0
PATIENCE_S = 60.0
"""The question is a courtesy: a run may go on without an answer."""
BUSY = (429, 500, 502, 503, 504)


def own_namespace() -> str | None:
    """The namespace of the pod that this is; None outside a pod, and in one without a token."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ or not (ACCOUNT / "token").is_file():
        return None
    return (ACCOUNT / "namespace").read_text().strip()


def missing_permissions(wanted: Iterable[Permission], namespace: str) -> list[Permission]:
    """Those that the pod's account has not.

    Raises:
        OSError: the API server cannot be asked; whether it may be is not known then.
    """
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    return [each for each in wanted if not _is_allowed(each, namespace, context)]


def _is_allowed(permission: Permission, namespace: str, context: ssl.SSLContext) -> bool:
    def ask() -> bool:
        with urllib.request.urlopen(request, timeout=REQUEST_S, context=context) as answer:  # noqa: S310
            return bool(json.load(answer)["status"].get("allowed"))

    request = urllib.request.Request(_address(), data=_review(permission, namespace), method="POST")  # noqa: S310
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text().strip()}")
    return patiently(ask, what="API server", may_pass=_is_away, deadline_s=PATIENCE_S)


def _address() -> str:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://{f'[{host}]' if ':' in host else host}:{port}{REVIEW}"


def _review(permission: Permission, namespace: str) -> bytes:
    resource, _, subresource = permission.resource.partition("/")
    attributes = {
        "namespace": namespace,
        "verb": permission.verb,
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
        "name": permission.name,
    }
    return json.dumps({"spec": {"resourceAttributes": attributes}}).encode()


def _is_away(error: BaseException) -> bool:
    if isinstance(error, HTTPError):
        return error.code in BUSY
    return isinstance(error, OSError)
