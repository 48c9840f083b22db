"""The two kinds of job that a cluster trains by: what sets them apart for one who begins, follows,
and ends them.

A TrainJob makes a JobSet, that a Job, and that the pods (Trainer 2.2.1 on JobSet 0.11, 2.3.0 on
0.12).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.shared.job.training_job import (
    KEEP_ANNOTATION,
    PYTORCHJOB_CONTAINER,
    TRAINJOB_CONTAINER,
)

Fields = dict[str, Any]
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class JobKind:
    name: str
    group: str
    version: str
    plural: str
    installed_by: str
    container: str
    """What the training container is called."""
    succeeded: str
    """Type of the condition that says so. Of all kinds, `Failed` is the other end."""
    judges_exit_codes: bool
    """Whether the controller itself fails the job when a container ends with its own error, below
    128. Else the launcher does."""
    pods: Callable[[str], str]
    """Name of the job -> selector of its pods by their labels."""
    makers: Callable[[str], tuple[str, ...]]
    """Name of the job -> names of it and of the objects between it and its pods, on which the
    cluster says why pods cannot be made."""
    num_pods: Callable[[Fields], int]
    is_suspended: Callable[[Fields], bool]
    pod_name: Callable[[Fields], str | None]
    """Metadata of a pod -> what sets it apart from the job's others, such as `worker-3`."""
    kept_seconds: Callable[[Fields], float | None]
    """How long the job is to stay when it is over; None: for ever."""
    with_image: Callable[[Fields, str], None]
    """Puts the image where the manifest names none."""

    @property
    def where(self) -> dict[str, str]:
        """Arguments of the API's calls."""
        return {"group": self.group, "version": self.version, "plural": self.plural}


def _pytorchjob_pod(metadata: Fields) -> str | None:
    labels = metadata.get("labels", {})
    kind, index = (
        labels.get("training.kubeflow.org/replica-type"),
        labels.get("training.kubeflow.org/replica-index"),
    )
    if kind is None:
        return None
    return f"{kind}-{index}"


def _pytorchjob_image(manifest: Fields, image: str) -> None:
    for replica in manifest["spec"]["pytorchReplicaSpecs"].values():
        for container in replica["template"]["spec"]["containers"]:
            if container["name"] == PYTORCHJOB_CONTAINER:
                container.setdefault("image", image)


PYTORCHJOB = JobKind(
    name="PyTorchJob",
    group="kubeflow.org",
    version="v1",
    plural="pytorchjobs",
    installed_by="Kubeflow's training operator 1.9",
    container=PYTORCHJOB_CONTAINER,
    succeeded="Succeeded",
    judges_exit_codes=True,
    pods=lambda name: f"training.kubeflow.org/job-name={name}",
    makers=lambda name: (name,),
    num_pods=lambda job: sum(
        replica.get("replicas", 1) for replica in job["spec"]["pytorchReplicaSpecs"].values()
    ),
    is_suspended=lambda job: bool(job["spec"].get("runPolicy", {}).get("suspend")),
    pod_name=_pytorchjob_pod,
    kept_seconds=lambda job: job["spec"].get("runPolicy", {}).get("ttlSecondsAfterFinished"),
    with_image=_pytorchjob_image,
)


def _trainjob_pod(metadata: Fields) -> str | None:
    """The index is a label from Kubernetes 1.28 on, and an annotation before and after."""
    index = metadata.get("labels", {}).get(COMPLETION_INDEX) or metadata.get("annotations", {}).get(
        COMPLETION_INDEX
    )
    if index is None:
        return None
    return f"node-{index}"


def _trainjob_kept(job: Fields) -> float | None:
    found = job["metadata"].get("annotations", {}).get(KEEP_ANNOTATION)
    if found is None:
        return None
    return float(found)


TRAINJOB = JobKind(
    name="TrainJob",
    group="trainer.kubeflow.org",
    version="v1alpha1",
    plural="trainjobs",
    installed_by="Kubeflow Trainer 2.2 or 2.3",
    container=TRAINJOB_CONTAINER,
    succeeded="Complete",
    judges_exit_codes=False,
    pods=lambda name: (
        f"jobset.sigs.k8s.io/jobset-name={name},"
        f"jobset.sigs.k8s.io/replicatedjob-name={TRAINJOB_CONTAINER}"
    ),
    makers=lambda name: (
        name,
        f"{name}-{TRAINJOB_CONTAINER}-0",
    ),  # TrainJob and JobSet share a name
    num_pods=lambda job: job["spec"].get("trainer", {}).get("numNodes", 1),
    is_suspended=lambda job: bool(job["spec"].get("suspend")),
    pod_name=_trainjob_pod,
    kept_seconds=_trainjob_kept,
    with_image=lambda manifest, image: manifest["spec"]["trainer"].setdefault("image", image),
)
KINDS = {"pytorchjob": PYTORCHJOB, "trainjob": TRAINJOB}
"""By the spec's `backend`."""
