"""What a spec asks of its job in a cluster that no cluster can give, or that its runtime does not
keep: known before any cluster is asked."""

from collections.abc import Iterator
from typing import Any

from components.shared.errors import SpecError
from components.shared.job.training_job import (
    AFTER_GRACE_S,
    KFP_RUN_ANNOTATION,
    LEASE_ANNOTATION,
    LEASE_LABELS,
    OF_RUNTIME,
    OWN_RUNTIME,
    OWN_RUNTIME_GRACE_S,
    OWN_RUNTIME_RESTARTS,
    PYTORCHJOB_CONTAINER,
    RUN_ANNOTATION,
    TRAINING_ANNOTATION,
    TRAINJOB_CONTAINER,
)
from components.shared.printable import shown
from components.shared.spec.run_spec import RunSpec

TRAINJOB_NODES = 1000
"""Beyond which a pod's name of a TrainJob would be no DNS label; see NAME_CHARACTERS in pod.py."""
OWN_FIELDS = (
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    *(("metadata", "labels", name) for name in LEASE_LABELS),
    *(
        ("metadata", "annotations", name)
        for name in (RUN_ANNOTATION, TRAINING_ANNOTATION, LEASE_ANNOTATION, KFP_RUN_ANNOTATION)
    ),
)
"""Of the manifest, from its root: by these launcher, reaper and the pipeline's end find the job."""

OF_THE_NODE = {
    "privileged": "rights of root on the node",
    "hostPath": "folders of the node",
    "hostPort": "ports of the node",
    "hostNetwork": "network of the node",
    "hostPID": "processes of the node",
    "hostIPC": "shared memory of the node",
    "hostProcess": "processes of the node",
}
"""Fields of a pod that Kubernetes' own standard forbids to all but trusted system pods
(https://kubernetes.io/docs/concepts/security/pod-security-standards/, Baseline), and what they
give."""


def check_job(spec: RunSpec) -> None:
    """Raises SpecError with all of it. Whether the cluster's own schema has a patch's other fields,
    only the cluster can say."""
    if spec.backend == "local":
        problems = []
    else:
        problems = list(_problems(spec))
    if problems:
        raise SpecError(*problems)


def _problems(spec: RunSpec) -> Iterator[str]:
    cluster, nodes = spec.cluster, spec.hardware
    if (nodes.gpu, nodes.gpu_memory_gib, nodes.host_memory_gib) == (None, None, None):
        yield (
            "hardware: says nothing of the cluster's nodes, so nobody can tell what fits; set "
            "hardware.gpu or hardware.gpu_memory_gib, or hardware.host_memory_gib to train on CPUs"
        )
    changed = (_changed(cluster.patch, field) for field in OWN_FIELDS)
    for place in dict.fromkeys(each for each in changed if each is not None):
        if place == "metadata.namespace":
            where = ", set cluster.namespace instead"
        else:
            where = ""
        yield (
            f"cluster.patch: {place} must stay as hagane sets it, which finds the job by it; "
            f"remove it{where}"
        )
    if "mig-" in cluster.gpu_resource and nodes.processes_per_node > 1:
        yield (
            f"hardware.processes_per_node: found {nodes.processes_per_node} with "
            f"cluster.gpu_resource {cluster.gpu_resource!r}, allowed 1: CUDA shows a pod one MIG "
            "instance only, however many it has, and NCCL joins none of one GPU. Fix: set "
            "hardware.processes_per_node: 1, or use whole GPUs"
        )
    yield from _unknown_containers(spec)
    for name, patch in (("cluster.patch", cluster.patch), ("cluster.pod_patch", cluster.pod_patch)):
        yield from _beyond_its_rights(name, patch, cluster.service_account)
    if spec.backend == "trainjob":
        if nodes.num_nodes > TRAINJOB_NODES:
            yield (
                f"hardware.num_nodes: found {nodes.num_nodes}, a TrainJob takes at most "
                f"{TRAINJOB_NODES}. Fix: use backend: pytorchjob"
            )
        if cluster.priority_class is not None:
            yield (
                "cluster.priority_class: a TrainJob has no place for it; set it in the runtime "
                "that cluster.runtime names, or remove it"
            )
        if cluster.gang:
            yield (
                "cluster.gang: a TrainJob leaves that to its runtime's podGroupPolicy; name such a "
                "one by cluster.runtime"
            )
        patched = cluster.pod_patch.get("spec") or {}
        for name in OF_RUNTIME:
            if name in patched:
                yield (
                    f"cluster.pod_patch: spec.{name}: a TrainJob has no place for it; set it in "
                    "the runtime that cluster.runtime names"
                )


def job_cautions(spec: RunSpec) -> Iterator[str]:
    """What the runtime of a TrainJob, as it is shipped, does not keep of the spec."""
    if spec.backend != "trainjob":
        return
    cluster, grace_s = spec.cluster, spec.checkpoints.grace_seconds + AFTER_GRACE_S
    if cluster.runtime != OWN_RUNTIME:
        yield (
            f"cluster.runtime: {cluster.runtime} decides what follows a lost pod, whatever "
            "cluster.max_restarts says; Trainer's stock runtimes end the job after 6 restarts of "
            "containers, counted over all pods (backoffLimit): with 8 nodes the first lost peer "
            f"ends it. They give pods 30 s to end; this spec's need {grace_s}. cluster.runtime: "
            f"{OWN_RUNTIME} keeps both"
        )
        return
    if cluster.max_restarts > OWN_RUNTIME_RESTARTS:
        yield (
            f"cluster.max_restarts: {cluster.max_restarts}, but the runtime {OWN_RUNTIME} is "
            f"shipped with maxRestarts {OWN_RUNTIME_RESTARTS}; raise it in k8s/overlays/trainjob"
        )
    if grace_s > OWN_RUNTIME_GRACE_S:
        yield (
            f"checkpoints.grace_seconds: pods need {grace_s} s to end, but the runtime "
            f"{OWN_RUNTIME} is shipped with terminationGracePeriodSeconds {OWN_RUNTIME_GRACE_S}; "
            "raise it in k8s/overlays/trainjob"
        )


def _beyond_its_rights(where: str, found: Any, account: str) -> Iterator[str]:
    """What of a patch would let the pod reach beyond itself: into its node, or as another account.
    At any depth, in lists too."""
    if isinstance(found, list | tuple):
        items = enumerate(found)
    elif isinstance(found, dict):
        items = found.items()
    else:
        items = ()
    for key, value in items:
        if isinstance(key, int):
            place = f"{where}[{key}]"
        elif ": " not in where:
            place = f"{where}: {key}"
        else:
            place = f"{where}.{key}"
        if key in OF_THE_NODE and value not in (None, False):
            yield (
                f"{place}: found {shown(value)}, hagane's pods get no {OF_THE_NODE[key]}. Fix: "
                "remove it"
            )
        elif key in ("serviceAccountName", "serviceAccount") and value != account:
            yield (
                f"{place}: found {shown(value)}, allowed is {account!r}. Fix: set "
                "cluster.service_account instead"
            )
        else:
            yield from _beyond_its_rights(place, value, account)


def _unknown_containers(spec: RunSpec) -> Iterator[str]:
    """A container of the patch that the job has not is a new one, which no pod starts without an
    image."""
    if spec.backend == "trainjob":
        own = TRAINJOB_CONTAINER
    else:
        own = PYTORCHJOB_CONTAINER
    containers = (spec.cluster.pod_patch.get("spec") or {}).get("containers") or []
    for each in containers:
        if isinstance(each, dict) and each.get("name") != own and "image" not in each:
            found = shown(each.get("name"))
            yield (
                f"cluster.pod_patch: spec.containers: found {found} without an image, but the "
                f"job's container is {own!r}. Fix: name it {own!r}, or give the new container an "
                "image"
            )


def _changed(patch: dict[str, Any], field: tuple[str, ...]) -> str | None:
    """Where the patch changes the field: its place, or that of a mapping around it which is no
    mapping any more (null removes it)."""
    found: Any = patch
    for depth, key in enumerate(field, start=1):
        if key not in found:
            return None
        found = found[key]
        if not isinstance(found, dict):
            return ".".join(field[:depth])
    return ".".join(field)
