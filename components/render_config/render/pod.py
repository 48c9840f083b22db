"""Spec + plan -> the pod of one node, and what every kind of job in a cluster has: its name,
labels, annotations."""

import hashlib
import math
from typing import Any

from components.shared.documents.plan import Plan
from components.shared.job.training_job import (
    AFTER_GRACE_S,
    ENVIRONMENT_VARIABLE,
    LEASE_LABELS,
    RUN_ANNOTATION,
    TRAINING_ANNOTATION,
    patience_minutes,
    shared_memory_bytes,
    worker_environment,
)
from components.shared.spec.run_spec import RunSpec

Fields = dict[str, Any]
WORK, SHARED_MEMORY = "/hagane/work", "/dev/shm"  # noqa: S108 - the place itself, not a file in it
ENVIRONMENT = "/hagane/environment"
LEAST_SHARED_MEMORY = 64 * 2**20
"""Bytes: what a container has of /dev/shm when nobody asks for more."""
CPUS_PER_GPU = 4
"""CPU cores that a pod requests for each GPU unless `cluster.cpus` says otherwise. Without a
request a pod gets the least share of a busy node, or what a LimitRange gives (often half a
core)."""
GPU_TAINT = "nvidia.com/gpu"
"""Key of the taint that keeps other pods off GPU nodes. GKE sets it, and adds the toleration
itself; on EKS and AKS admins set it by custom."""
NAME_CHARACTERS = {"pytorchjob": 49, "trainjob": 46}
"""Longest name of a job by backend, so that its pods' names are DNS labels of 63 characters:
`<name>-worker-1023`, and of a TrainJob `<name>-node-0-999-x7k2p`, which JobSet's webhook counts for
the number of nodes at hand (v0.12)."""
DIGEST_CHARACTERS = 8


def job_metadata(spec: RunSpec, plan: Plan) -> Fields:
    """Name, labels and annotations of the job, by which launcher and reaper find it, and Kueue
    where to queue it."""
    queue = spec.cluster.queue
    return {
        "name": planned_job_name(spec),
        "labels": labels(spec) | ({"kueue.x-k8s.io/queue-name": queue} if queue else {}),
        "annotations": {RUN_ANNOTATION: spec.run_uri, TRAINING_ANNOTATION: plan.training_digest},
    }


def planned_job_name(spec: RunSpec) -> str:
    """The same for each try of a run, so that a retried step finds its job; its pods' names fit."""
    digest = hashlib.sha256(spec.run_uri.encode()).hexdigest()[:DIGEST_CHARACTERS]
    longest = NAME_CHARACTERS.get(spec.backend, min(NAME_CHARACTERS.values()))
    kept = spec.name[: longest - DIGEST_CHARACTERS - 1]
    return f"{kept.rstrip('-')}-{digest}"


def merged(base: Any, patch: Any) -> Any:
    """`patch` in `base`: mappings merge, lists of things with a name merge by it, null removes, all
    else replaces."""
    if isinstance(base, dict) and isinstance(patch, dict):
        both = {
            key: merged(base.get(key), value) for key, value in patch.items() if value is not None
        }
        return {key: value for key, value in base.items() if key not in patch} | both
    if _named(base) and _named(patch):
        changes = {item["name"]: item for item in patch}
        kept = [merged(item, changes.pop(item["name"], {})) for item in base]
        return [*kept, *changes.values()]
    return patch


def _named(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(item, dict) and "name" in item for item in value)
    )


def labels(spec: RunSpec) -> dict[str, str]:
    """Of job and pods. The spec's own stand beside hagane's, never in their place."""
    if spec.cluster.user is None:
        user = {}
    else:
        user = {"hagane.dev/user": spec.cluster.user}
    own = {**LEASE_LABELS, "hagane.dev/run": spec.name, "hagane.dev/spec": spec.digest[:16], **user}
    return own | spec.cluster.labels | own


def pod_template(
    spec: RunSpec, plan: Plan, *, container: str, settings_as_files: bool = False
) -> Fields:
    """The pod of one node, without image, with the spec's `pod_patch` in it.

    `container`: what the job's controller wants the training container to be called.
    `settings_as_files`: entries of ConfigMaps and Secrets are files, for a kind of job that has no
    envFrom; components.train.node makes environment variables of them.
    """
    cluster = spec.cluster
    claims = {
        f"claim-{number}": (claim, path)
        for number, (claim, path) in enumerate(sorted(cluster.claims.items()))
    }
    work: Fields = {"emptyDir": {"sizeLimit": _mebibytes(_work_bytes(spec, plan))}}
    if cluster.work_claim is not None:
        work = {"persistentVolumeClaim": {"claimName": cluster.work_claim}}
    volumes = [
        {"name": "work", **work},
        {"name": "tmp", "emptyDir": {}},
        {
            "name": "shm",
            "emptyDir": {"medium": "Memory", "sizeLimit": _mebibytes(_shared_memory(spec, plan))},
        },
        *(
            {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            for name, (claim, _) in claims.items()
        ),
        *(_settings_volumes(spec) if settings_as_files else ()),
    ]
    if settings_as_files:
        settings = _settings_as_files(spec)
    else:
        settings = _settings_as_variables(spec)
    pod: Fields = {
        "serviceAccountName": cluster.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.checkpoints.grace_seconds + AFTER_GRACE_S,
        # No uid: the image has one, and OpenShift gives its own. Not a word here about root: the
        # operator's init container, whose image has no user, would not start (v1.9.4).
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": container,
                **_container(
                    spec, plan, {name: path for name, (_, path) in claims.items()}, settings
                ),
            }
        ],
        "volumes": volumes,
    }
    settings = {
        "nodeSelector": cluster.node_selector,
        "tolerations": _tolerations(spec, plan),
        "affinity": cluster.affinity,
        "priorityClassName": cluster.priority_class,
    }
    pod |= {key: value for key, value in settings.items() if value}
    template = {
        "metadata": {"labels": labels(spec), "annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": pod,
    }
    return merged(template, cluster.pod_patch)


def _settings_as_variables(spec: RunSpec) -> Fields:
    maps = [{"configMapRef": {"name": name, "optional": True}} for name in spec.cluster.config_maps]
    return {
        "envFrom": [
            *maps,
            *({"secretRef": {"name": name, "optional": True}} for name in spec.cluster.secrets),
        ]
    }


def _settings_as_files(spec: RunSpec) -> Fields:
    """A folder of its own for each source, numbered: of entries with one name the last counts, as
    in envFrom."""
    volumes = enumerate(_settings_volumes(spec))
    mounts = [
        {"name": volume["name"], "mountPath": f"{ENVIRONMENT}/{number:02d}", "readOnly": True}
        for number, volume in volumes
    ]
    return {"env": [{"name": ENVIRONMENT_VARIABLE, "value": ENVIRONMENT}], "volumeMounts": mounts}


def _settings_volumes(spec: RunSpec) -> list[Fields]:
    maps = [{"configMap": {"name": name, "optional": True}} for name in spec.cluster.config_maps]
    secrets = [{"secret": {"secretName": name, "optional": True}} for name in spec.cluster.secrets]
    return [
        {"name": f"settings-{number}", **source} for number, source in enumerate([*maps, *secrets])
    ]


def _container(spec: RunSpec, plan: Plan, claims: dict[str, str], settings: Fields) -> Fields:
    cluster = spec.cluster
    environment = worker_environment(
        threads=plan.threads_per_process,
        grace_seconds=spec.checkpoints.grace_seconds,
        patience_minutes=patience_minutes(
            plan.checkpoints.bytes_each, spec.checkpoints.upload_mb_s
        ),
        num_gpus=spec.hardware.processes_per_node if plan.on_gpus else 0,
    )
    environment |= {"HAGANE_WORK": WORK, "HF_HOME": f"{WORK}/hub"}
    mounts: list[Fields] = [
        # Pods that share a claim each have a folder of their own in it.
        {"name": "work", "mountPath": WORK}
        | ({"subPathExpr": "$(POD_NAME)"} if cluster.work_claim else {}),
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        {"name": "shm", "mountPath": SHARED_MEMORY},
        *({"name": name, "mountPath": path, "readOnly": True} for name, path in claims.items()),
        *settings.get("volumeMounts", ()),
    ]
    return {
        "command": ["python", "-m", "components.train.node"],
        "args": [spec.run_uri],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": name, "value": value} for name, value in sorted(environment.items())),
            *settings.get("env", ()),
        ],
        **({"envFrom": settings["envFrom"]} if "envFrom" in settings else {}),
        "resources": _resources(spec, plan),
        "volumeMounts": mounts,
        "securityContext": {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _resources(spec: RunSpec, plan: Plan) -> Fields:
    """Memory is asked for and limited to the same, so that a node never has more pods than it can
    hold."""
    memory = _mebibytes(node_memory(spec, plan))
    requests, limits = (
        {"memory": memory, "ephemeral-storage": _mebibytes(_work_bytes(spec, plan))},
        {"memory": memory},
    )
    cpus = requested_cpus(spec, plan)
    if cpus is not None:
        requests["cpu"] = f"{round(1000 * cpus)}m"
    if plan.on_gpus:
        limits[spec.cluster.gpu_resource] = str(spec.hardware.processes_per_node)
    return {"requests": requests, "limits": limits}


def requested_cpus(spec: RunSpec, plan: Plan) -> float | None:
    """CPU cores that the pod of one node requests; None for no request."""
    if spec.cluster.cpus is not None:
        return spec.cluster.cpus
    if plan.on_gpus:
        return CPUS_PER_GPU * spec.hardware.processes_per_node
    return None


def _tolerations(spec: RunSpec, plan: Plan) -> list[Fields]:
    """The spec's own, and that of GPU nodes, which the spec may have already."""
    own = list(spec.cluster.tolerations)
    if not plan.on_gpus or any(each.get("key") == GPU_TAINT for each in own):
        return own
    return [*own, {"key": GPU_TAINT, "operator": "Exists"}]


def node_memory(spec: RunSpec, plan: Plan) -> int:
    """Bytes of host memory for the pod of one node: what the plan counts of the training processes,
    and what runs beside them, for which a pod has no other place. torchrun takes 219 MiB once it
    has its libraries, an uploader 52 MiB and the parts on their way."""
    beside = 256 * 2**20 + 192 * 2**20 * spec.hardware.processes_per_node
    return math.ceil((plan.memory.host_bytes + beside) * (1 + plan.memory.margin))


def _shared_memory(spec: RunSpec, plan: Plan) -> int:
    """Bytes of /dev/shm: a limit, which takes no memory until it is used."""
    if plan.on_gpus:
        needed = shared_memory_bytes(spec.hardware.processes_per_node)
    else:
        needed = 0
    return max(LEAST_SHARED_MEMORY, needed)


def _work_bytes(spec: RunSpec, plan: Plan) -> int:
    """Checkpoints on their way, a model from the hub, the dataset with 16 bytes for each token, and
    1 GiB for all else."""
    return (
        plan.checkpoints.work_bytes
        + 4 * plan.model.num_parameters
        + 16 * plan.steps.tokens_per_epoch
        + 2**30
    )


def _mebibytes(num_bytes: float) -> str:
    return f"{math.ceil(num_bytes / 2**20)}Mi"
