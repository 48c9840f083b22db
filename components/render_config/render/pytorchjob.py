"""Spec + plan -> the PyTorchJob (kubeflow.org/v1): every field that hagane sets of one, in this
module and, of its pods, in pod.py.

The launcher adds what only it knows: the image, and its lease. What comes of them: docs/cluster.md.
"""

from typing import Any

from components.render_config.render.pod import job_metadata, merged, pod_template
from components.shared.documents.plan import Plan
from components.shared.job.training_job import PYTORCHJOB_CONTAINER
from components.shared.spec.cluster import ClusterSpec
from components.shared.spec.run_spec import RunSpec

Fields = dict[str, Any]


def pytorchjob(spec: RunSpec, plan: Plan) -> Fields:
    """The manifest, with the spec's own patches in it, without image.

    Restart policy ExitCode: components.train.node ends with 128 and more for what may be tried
    again (a lost node or peer, SIGTERM), with less for what would fail again.
    """
    nodes = spec.hardware.num_nodes
    replica = {
        "restartPolicy": "ExitCode",
        "template": pod_template(spec, plan, container=PYTORCHJOB_CONTAINER),
    }
    manifest: Fields = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": job_metadata(spec, plan),
        "spec": {
            "nprocPerNode": str(spec.hardware.processes_per_node),
            "runPolicy": _run_policy(spec.cluster, nodes),
            "pytorchReplicaSpecs": {"Master": {"replicas": 1, **replica}}
            | ({"Worker": {"replicas": nodes - 1, **replica}} if nodes > 1 else {}),
        },
    }
    return merged(manifest, spec.cluster.patch)


def _run_policy(cluster: ClusterSpec, nodes: int) -> Fields:
    """backoffLimit is strict at 0 alone: the operator counts restarts of containers inside their
    pods, and ExitCode makes new pods instead (v1.9.4). Above 0 it is the launcher who counts."""
    policy: Fields = {
        "cleanPodPolicy": "Running",
        "backoffLimit": cluster.max_restarts,
        "ttlSecondsAfterFinished": round(3600 * cluster.keep_finished_hours),
    }
    if cluster.run_timeout_hours is not None:
        policy["activeDeadlineSeconds"] = round(3600 * cluster.run_timeout_hours)
    if cluster.queue is not None:
        policy["suspend"] = True
    if cluster.gang:
        if cluster.priority_class is None:
            priority = {}
        else:
            priority = {"priorityClass": cluster.priority_class}
        policy["schedulingPolicy"] = {"minAvailable": nodes, **priority}
    return policy
