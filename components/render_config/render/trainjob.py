"""Spec + plan -> the TrainJob (trainer.kubeflow.org/v1alpha1 of Kubeflow Trainer 2.2 and 2.3): every field that hagane sets of one,
in this module and, of its pods, in pod.py.

The pod is that of a PyTorchJob in two places: what a TrainJob has under `trainer`, and the rest as a patch of its runtime. Only fields
that Trainer 2.2 and 2.3 both have are set: an older server drops the others, and Kueue's update of a TrainJob erases them.
See docs/cluster.md.
"""

from typing import Any

from components.render_config.render.pod import job_metadata, merged, pod_template
from components.shared.documents.plan import Plan
from components.shared.job.training_job import (
    KEEP_ANNOTATION,
    OF_RUNTIME,
    OWN_RUNTIME,
    TRAINJOB_CONTAINER,
)
from components.shared.spec.run_spec import RunSpec

Fields = dict[str, Any]
MANAGER = "hagane.dev/launcher"
"""Owner of the patch: Kueue and others write patches of their own beside it."""
OF_TRAINER = {"command": "command", "args": "args", "env": "env", "resources": "resourcesPerNode", "image": "image"}
"""Field of a container -> field of `trainer`; Trainer takes these from there alone."""


def trainjob(spec: RunSpec, plan: Plan) -> Fields:
    """The manifest, with the spec's own patches in it, without image."""
    cluster = spec.cluster
    template = pod_template(spec, plan, container=TRAINJOB_CONTAINER, settings_as_files=True)
    pod = {key: value for key, value in template["spec"].items() if key not in OF_RUNTIME}
    container = next(each for each in pod["containers"] if each["name"] == TRAINJOB_CONTAINER)
    rest = {key: value for key, value in container.items() if key not in OF_TRAINER}
    patched = {**template, "spec": {**pod, "containers": [rest if each is container else each for each in pod["containers"]]}}
    metadata = job_metadata(spec, plan)
    # A TrainJob does not remove itself: the reaper goes by this.
    metadata["annotations"][KEEP_ANNOTATION] = str(round(3600 * cluster.keep_finished_hours))
    job: Fields = {
        "runtimeRef": _runtime_ref(cluster.runtime),
        "trainer": {
            "numNodes": spec.hardware.num_nodes,
            "numProcPerNode": spec.hardware.processes_per_node,
            **{field: container[key] for key, field in OF_TRAINER.items() if key in container},
        },
        "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": _runtime_patch(patched)}],
    }
    if cluster.queue is not None:
        job["suspend"] = True
    if cluster.run_timeout_hours is not None:
        job["activeDeadlineSeconds"] = round(3600 * cluster.run_timeout_hours)
    return merged({"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": metadata, "spec": job}, cluster.patch)


def _runtime_ref(name: str) -> Fields:
    """Hagane's own runtime is one of the namespace, all others are the cluster's, which is what Trainer takes a name for."""
    if name == OWN_RUNTIME:
        return {"kind": "TrainingRuntime", "name": name}
    return {"name": name}


def _runtime_patch(pod: Fields) -> Fields:
    """Of the JobSet's replicated job that Trainer's runtimes for torch call `node`, as its container."""
    return {"template": {"spec": {"replicatedJobs": [{"name": TRAINJOB_CONTAINER, "template": {"spec": {"template": pod}}}]}}}
