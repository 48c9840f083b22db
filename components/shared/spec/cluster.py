"""`cluster` of the spec: the training job in Kubernetes."""

from typing import Any

from pydantic import Field

from components.shared.documents.fields import FrozenModel, Number
from components.shared.spec.values import MOST_MINUTES, OBJECT_PATTERN, USER_PATTERN


class ClusterSpec(FrozenModel):
    """The training job in a Kubernetes cluster; without effect where the backend is `local`.
    Secrets stand here by name only."""

    namespace: str | None = Field(default=None, pattern=OBJECT_PATTERN)
    """Namespace of the job: without it, that of the launcher's pod or of the kubeconfig in use."""
    service_account: str = Field(default="hagane-worker", pattern=OBJECT_PATTERN)
    """Account of the workers, which needs no right in the cluster; a cloud's role for the store may
    hang on it."""
    config_maps: tuple[str, ...] = ("hagane",)
    """ConfigMaps whose entries are environment variables of the workers, such as the store's
    endpoint; one that is not there is passed over."""
    secrets: tuple[str, ...] = ("hagane-s3",)
    """Secrets whose entries are environment variables of the workers, such as the store's keys; one
    that is not there is passed over."""
    claims: dict[str, str] = Field(default_factory=dict)
    """PersistentVolumeClaims that the workers see, read-only, each with its folder, such as
    `{models-pvc: /models}`. For models that lie in the cluster."""
    work_claim: str | None = Field(default=None, pattern=OBJECT_PATTERN)
    """PersistentVolumeClaim for the workers' scratch files; without it they are on the node's disk,
    with a limit from the plan."""
    cpus: Number | None = Field(default=None, ge=0.001, le=10_000)
    """CPU cores that each pod requests. Without it, 4 for each GPU, and no request where training
    is on CPUs."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of a GPU among a node's resources."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints that the pods tolerate, as Kubernetes writes them: spot nodes often have one. Pods
    with GPUs also tolerate nvidia.com/gpu."""
    affinity: dict[str, Any] = Field(default_factory=dict)
    """Affinity of the pods, as Kubernetes writes it."""
    priority_class: str | None = Field(default=None, pattern=OBJECT_PATTERN)
    """PriorityClass of the pods."""
    queue: str | None = Field(default=None, pattern=OBJECT_PATTERN)
    """Kueue's LocalQueue: the job is made suspended and waits there."""
    gang: bool = False
    """Let a gang scheduler start all pods at once or none. A TrainJob leaves that to its
    runtime."""
    runtime: str = Field(default="hagane", pattern=OBJECT_PATTERN)
    """Of a TrainJob: its runtime. `hagane` is the namespace's TrainingRuntime of
    k8s/overlays/trainjob; any other name is a ClusterTrainingRuntime, such as Trainer's
    torch-distributed, which ignores `max_restarts`."""
    user: str | None = Field(default=None, pattern=USER_PATTERN)
    """Whose run it is: a label of job and pods, `hagane.dev/user`, of letters, digits, dots,
    hyphens, underscores."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Further labels of job and pods, such as a team or cost centre."""
    max_restarts: int = Field(default=10, ge=0, le=1_000_000)
    """How often the pods may be started again after a lost node or peer. The job fails earlier when
    4 restarts in a row make no training step."""
    queue_timeout_minutes: Number = Field(default=720, gt=0, le=MOST_MINUTES)
    """Longest wait until all pods have a node."""
    start_timeout_minutes: Number = Field(default=30, gt=0, le=MOST_MINUTES)
    """Longest wait from then on until training begins: images pulled, weights loaded, all processes
    met."""
    stall_timeout_minutes: Number = Field(default=30, gt=0, le=MOST_MINUTES)
    """Longest time without a step made, once training has begun."""
    run_timeout_hours: Number | None = Field(default=None, gt=0, le=MOST_MINUTES / 60)
    """Longest time that the job may run in all."""
    keep_finished_hours: Number = Field(default=24, ge=0, le=MOST_MINUTES / 60)
    """How long the finished job stays to be looked at."""
    patch: dict[str, Any] = Field(default_factory=dict)
    """Changes to the job's manifest: mappings merge, lists of named things merge by name, null
    removes. The cluster is asked what it would keep of it before anything is made."""
    pod_patch: dict[str, Any] = Field(default_factory=dict)
    """The same for each pod's template. Refused in both: privileged containers, paths, ports and
    namespaces of the node, and another account than `service_account`."""
