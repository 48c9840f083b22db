"""Accounts under which KFP runs a pipeline's pods, made in a namespace of a real API server; and pods that do what KFP's own parts do.

KFP itself is not here: 2.17 needs a database and a store. What its driver, launcher and Argo's executor ask of the API server is
asked by a few lines of Python in pods, in the same way and under the same account.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

import yaml

from components.shared.job.permissions import Permission
from tests.cluster.conftest import ROOT, kubectl

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workflowtaskresults.argoproj.io"},
    "spec": {
        "group": "argoproj.io",
        "scope": "Namespaced",
        "names": {"plural": "workflowtaskresults", "singular": "workflowtaskresult", "kind": "WorkflowTaskResult"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
PIPELINE_RUNNER = [
    ({"": ["secrets"]}, ["get"]),
    ({"": ["configmaps"]}, ["get", "watch", "list"]),
    ({"argoproj.io": ["workflows", "workflowtaskresults"]}, ["get", "create", "patch", "watch", "list", "update"]),
    ({"": ["pods", "pods/exec", "pods/log", "services"]}, ["*"]),
    ({"kubeflow.org": ["*"], "batch": ["jobs"]}, ["*"]),
]
"""What KFP 2.17's own Role lets pipeline-runner do, as far as a run of hagane comes near it
(manifests/kustomize/base/pipeline/pipeline-runner-role.yaml). It has nothing of events."""


def rules(granted: list[tuple[dict[str, list[str]], list[str]]]) -> list[dict[str, Any]]:
    return [
        {"apiGroups": [group], "resources": resources, "verbs": verbs} for groups, verbs in granted for group, resources in groups.items()
    ]


def overlay_in(overlay: str, namespace: str) -> list[dict[str, Any]]:
    """The accounts and rights of an overlay, put into another namespace."""
    rendered = list(yaml.safe_load_all(kubectl("kustomize", str(ROOT / "k8s" / "overlays" / overlay))))
    kept = [each for each in rendered if each["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
    for each in kept:
        each["metadata"]["namespace"] = namespace
        for subject in each.get("subjects", []):
            subject["namespace"] = namespace
    return kept


def by_kfp(account: str, namespace: str) -> list[dict[str, Any]]:
    """What KFP itself makes for its account before hagane comes: for default-editor the account alone, so that nothing else helps."""
    objects: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}]
    if account == "pipeline-runner":
        rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": account}}
        subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
        objects += [
            {**rbac, "kind": "Role", "rules": rules(PIPELINE_RUNNER)},
            {**rbac, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
        ]
    for each in objects:
        each["metadata"] = {**each["metadata"], "namespace": namespace}
    return objects


def kfps_own(namespace: str) -> list[dict[str, Any]]:
    """The config map and the secret that a stock KFP has, and one of each that is none of its business."""

    def named(kind: str, name: str) -> dict[str, Any]:
        value = base64.b64encode(b"x").decode() if kind == "Secret" else "x"
        return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "data": {"key": value}}

    return [
        named("ConfigMap", "kfp-launcher"),
        named("Secret", "mlpipeline-minio-artifact"),
        named("ConfigMap", "another"),
        named("Secret", "another"),
    ]


def may(account: str, permission: Permission, namespace: str) -> bool:
    """What `kubectl auth can-i` says when it asks as the account."""
    resource, _, subresource = permission.resource.partition("/")
    what = f"{resource}.{permission.group}" if permission.group else resource
    what += f"/{permission.name}" if permission.name else ""
    more = [f"--subresource={subresource}"] if subresource else []
    user = f"system:serviceaccount:{namespace}:{account}"
    answer = kubectl("auth", "can-i", permission.verb, what, *more, f"--as={user}", "-n", namespace, failing=True)
    return answer.strip().splitlines()[-1] == "yes"


CALLS = """
import json, ssl, urllib.error, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
token, namespace = open(folder + "token").read(), open(folder + "namespace").read()
context = ssl.create_default_context(cafile=folder + "ca.crt")

def ask(method, path, body=None, kind="application/json"):
    address = "https://kubernetes.default.svc" + path.replace("NS", namespace)
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, method=method)
    request.add_header("Authorization", "Bearer " + token)
    request.add_header("Content-Type", kind)
    try:
        return urllib.request.urlopen(request, context=context, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code

results = "/apis/argoproj.io/v1alpha1/namespaces/NS/workflowtaskresults"
result = {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskResult", "metadata": {"name": NAME}}
print(json.dumps({
    "driver: get configmap kfp-launcher": ask("GET", "/api/v1/namespaces/NS/configmaps/kfp-launcher"),
    "launcher: get secret mlpipeline-minio-artifact": ask("GET", "/api/v1/namespaces/NS/secrets/mlpipeline-minio-artifact"),
    "executor: create workflowtaskresult": ask("POST", results, result),
    "executor: patch workflowtaskresult": ask("PATCH", results + "/" + NAME, {"phase": "Succeeded"}, "application/merge-patch+json"),
    "hagane: list pytorchjobs": ask("GET", "/apis/kubeflow.org/v1/namespaces/NS/pytorchjobs"),
    "hagane: list pods": ask("GET", "/api/v1/namespaces/NS/pods"),
    "hagane: list events": ask("GET", "/api/v1/namespaces/NS/events"),
    "refused: get configmap another": ask("GET", "/api/v1/namespaces/NS/configmaps/another"),
    "refused: get secret another": ask("GET", "/api/v1/namespaces/NS/secrets/another"),
    "refused: list secrets": ask("GET", "/api/v1/namespaces/NS/secrets"),
    "refused: delete workflowtaskresult": ask("DELETE", results + "/" + NAME),
    "refused: get secret elsewhere": ask("GET", "/api/v1/namespaces/default/secrets/any"),
}))
"""


@dataclass(frozen=True)
class CallingPod:
    account: str
    namespace: str
    image: str

    @property
    def name(self) -> str:
        return f"calls-{self.account}"

    def manifest(self) -> dict[str, Any]:
        program = CALLS.replace("NAME", json.dumps(self.account))
        container = {"name": "main", "image": self.image, "imagePullPolicy": "IfNotPresent", "command": ["python3", "-c", program]}
        spec = {
            "serviceAccountName": self.account,
            "automountServiceAccountToken": True,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name, "namespace": self.namespace}, "spec": spec}
