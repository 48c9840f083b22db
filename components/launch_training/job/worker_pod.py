"""A job's manifest -> the pod of a worker, whatever kind of job it is."""

import json
from typing import Any

from components.launch_training.job.kinds import JobKind

Fields = dict[str, Any]
OF_TRAINER = {"command": "command", "args": "args", "env": "env", "image": "image", "resourcesPerNode": "resources"}
"""Field of a TrainJob's `trainer` -> field of its container."""


def worker_template(manifest: Fields, kind: JobKind) -> Fields:
    """A copy of the template of the first worker's pod, its container whole."""
    manifest = json.loads(json.dumps(manifest))
    if kind.name != "TrainJob":
        return manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    (replicated,) = manifest["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = replicated["template"]["spec"]["template"]
    trainer = manifest["spec"]["trainer"]
    for container in template["spec"]["containers"]:
        if container["name"] == kind.container:
            container |= {field: trainer[key] for key, field in OF_TRAINER.items() if key in trainer}
    return template
