"""What the account of a pipeline's pods must be allowed: by hagane's launcher, and by KFP's own parts.

KFP runs every pod of a run under one account: its driver, its launcher and Argo's executor beside
hagane's steps. So both lists are needed, by each account that pipelines run under. The doctor, the
first second of a run and the test of k8s/overlays read them here.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Permission:
    verb: str
    group: str
    """"" for the core group."""
    resource: str
    """With its subresource, such as `pods/log`."""
    name: str = ""
    """Of the one object that it is needed for; empty: of any."""

    def __str__(self) -> str:
        group = self.group and f".{self.group}"
        only = self.name and f" {self.name}"
        return f"{self.verb} {self.resource}{group}{only}"


PYTORCHJOBS = ("kubeflow.org", "pytorchjobs")
TRAINJOBS = ("trainer.kubeflow.org", "trainjobs")
JOBS = {"pytorchjob": PYTORCHJOBS, "trainjob": TRAINJOBS}
"""The spec's `backend` -> group and plural of its jobs."""
JOB_VERBS = ("create", "get", "list", "watch", "patch", "delete")
ARGO = "argoproj.io"
KFP_POD_PERMISSIONS = (
    Permission("get", "", "configmaps", "kfp-launcher"),
    Permission("get", "", "secrets", "mlpipeline-minio-artifact"),
    Permission("create", ARGO, "workflowtaskresults"),
    Permission("patch", ARGO, "workflowtaskresults"),
)
"""Of a pod of KFP 2.17 and Argo 4.0, as seen on the servers: the driver reads its settings
(backend/src/v2/config/env.go), the driver and KFP's launcher read the keys of KFP's own store
(v2/objectstore/object_store.go), Argo's executor says how the pod ended (workflow/executor)."""


OF_QUEUES = (Permission("list", "kueue.x-k8s.io", "workloads"),)
"""By which the launcher knows why a job waits in its queue. Without it the job is followed all the same."""


def launcher_permissions(backend: str) -> tuple[Permission, ...]:
    """All that hagane's launcher asks of the API server, to train by the spec's backend."""
    if backend not in JOBS:
        return ()
    group, plural = JOBS[backend]
    return (
        *(Permission(verb, group, plural) for verb in JOB_VERBS),
        *(Permission(verb, "", which) for which in ("pods", "events") for verb in ("list", "watch")),
        Permission("get", "", "pods/log"),
    )


def granted_by(permission: Permission) -> str:
    """The file of k8s/ whose Role grants it."""
    if permission in KFP_POD_PERMISSIONS:
        return "k8s/base/kfp-pod-role.yaml"
    return "k8s/base/launcher-role.yaml"


def refusals(missing: Iterable[Permission], namespace: str) -> list[str]:
    """A line for each permission that a run would come to need."""
    return [
        f"cluster: may not {each} in namespace {namespace}: not allowed (403); {granted_by(each)} grants it. Fix: {BIND}"
        for each in missing
    ]


BIND = (
    "kubectl apply -k k8s/overlays/kfp-single-user or kfp-profile, which bind these Roles to hagane-launcher and to KFP's own account; "
    "elsewhere run as hagane-launcher, or bind them to the account"
)
