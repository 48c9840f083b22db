"""The runtime of a TrainJob -> which of the spec's promises it does not keep."""

from collections.abc import Iterator
from typing import Any

from components.shared.documents.findings import Finding
from components.shared.job.training_job import AFTER_GRACE_S, OWN_RUNTIME, TRAINJOB_CONTAINER
from components.shared.spec.run_spec import RunSpec

Fields = dict[str, Any]
KUBERNETES_GRACE_S, KUBERNETES_BACKOFF = 30, 6
"""What Kubernetes takes where a pod names no grace period, and a Job no backoffLimit."""
APPLY = "kubectl apply -n NAMESPACE -f k8s/overlays/trainjob/runtime.yaml"


def runtime_finding(spec: RunSpec, kind: str, runtime: Fields | None) -> Finding:
    """`kind`: TrainingRuntime or ClusterTrainingRuntime."""
    name = spec.cluster.runtime
    if runtime is None:
        if name == OWN_RUNTIME:
            fix = APPLY
        else:
            fix = "install Kubeflow Trainer's runtimes, or name another in cluster.runtime"
        return Finding(check="runtime", state="failed", found=f"no {kind} {name}", fix=fix)
    jobset = runtime["spec"]["template"]["spec"]
    job = next(
        (each for each in jobset.get("replicatedJobs", []) if each["name"] == TRAINJOB_CONTAINER),
        None,
    )
    if job is None or TRAINJOB_CONTAINER not in _containers(job):
        found = (
            f"{kind} {name} has no replicated job and container {TRAINJOB_CONTAINER!r}, which "
            "hagane's jobs go by"
        )
        return Finding(
            check="runtime",
            state="failed",
            found=found,
            fix=f"name another in cluster.runtime, such as {OWN_RUNTIME}",
        )
    broken = list(_not_kept(spec, jobset, job["template"].get("spec", {})))
    if not broken:
        found = (
            f"{kind} {name} keeps max_restarts {spec.cluster.max_restarts} and grace_seconds "
            f"{spec.checkpoints.grace_seconds}"
        )
        return Finding(check="runtime", state="ok", found=found)
    if name != OWN_RUNTIME:
        fix = f"cluster.runtime: {OWN_RUNTIME} ({APPLY})"
    else:
        fix = "raise it in k8s/overlays/trainjob, and apply it again"
    return Finding(
        check="runtime", state="warning", found=f"{kind} {name}: {'; '.join(broken)}", fix=fix
    )


def _not_kept(spec: RunSpec, jobset: Fields, job: Fields) -> Iterator[str]:
    pod = job.get("template", {}).get("spec", {})
    wanted, restarts = (
        spec.cluster.max_restarts,
        jobset.get("failurePolicy", {}).get("maxRestarts", 0),
    )
    makes_new_pods = pod.get("restartPolicy") == "Never" and restarts > 0
    if not makes_new_pods:
        limit = job.get("backoffLimit", KUBERNETES_BACKOFF)
        yield (
            f"backoffLimit {limit}, counted over all pods, ends the job before "
            f"cluster.max_restarts {wanted} may"
        )
    elif restarts < wanted:
        yield f"maxRestarts {restarts} is below cluster.max_restarts {wanted}"
    grace_s, needed_s = (
        pod.get("terminationGracePeriodSeconds", KUBERNETES_GRACE_S),
        spec.checkpoints.grace_seconds + AFTER_GRACE_S,
    )
    if grace_s < needed_s:
        yield f"pods have {grace_s} s to end, checkpoints.grace_seconds needs {needed_s}"
    if pod.get("automountServiceAccountToken", True):
        yield "pods get the token of their service account"


def _containers(job: Fields) -> set[str]:
    pod = job["template"].get("spec", {}).get("template", {}).get("spec", {})
    return {each["name"] for each in pod.get("containers", [])}
