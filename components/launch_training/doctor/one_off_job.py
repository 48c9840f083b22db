"""The job of a plan -> one of the same shape that runs another program once.

It keeps what decides whether training would run: nodes, GPUs, image, resources, account,
environment, volumes, queue.
"""

import json
from typing import Any

from components.launch_training.job.kinds import JobKind
from components.shared.job.training_job import AFTER_GRACE_S

Fields = dict[str, Any]
KEPT_S = 60
"""How long the job stays when it is over, should whoever reads its pods' logs be gone."""


def one_off_job(
    manifest: Fields,
    kind: JobKind,
    name: str,
    *,
    image: str,
    program: list[str],
    arguments: list[str],
    num_nodes: int,
    longest_s: int,
) -> Fields:
    """A job of `num_nodes` pods, ended by its controller after `longest_s`.

    The program must end with 0 whatever it finds: some runtimes start a pod that fails anew.
    """
    job = json.loads(json.dumps(manifest))
    kind.with_image(job, image)
    if kind.name == "TrainJob":
        trainer = {"command": program, "args": arguments, "numNodes": num_nodes}
        job["spec"]["trainer"] |= trainer
        job["spec"]["activeDeadlineSeconds"] = longest_s
    else:
        _shape_pytorchjob(
            job["spec"], kind, program, arguments, num_nodes=num_nodes, longest_s=longest_s
        )
    metadata = {"name": name, "labels": job["metadata"]["labels"]}
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": metadata,
        "spec": job["spec"],
    }


def _shape_pytorchjob(
    spec: Fields,
    kind: JobKind,
    program: list[str],
    arguments: list[str],
    *,
    num_nodes: int,
    longest_s: int,
) -> None:
    # The pods stay when they are over: what they printed goes with them, and is read only then.
    spec["runPolicy"] |= {
        "cleanPodPolicy": "None",
        "ttlSecondsAfterFinished": KEPT_S,
        "activeDeadlineSeconds": longest_s,
        "backoffLimit": 0,
    }
    if "schedulingPolicy" in spec["runPolicy"]:
        spec["runPolicy"]["schedulingPolicy"]["minAvailable"] = num_nodes
    replicas = spec["pytorchReplicaSpecs"]
    if num_nodes == 1:
        replicas.pop("Worker", None)
    else:
        replicas["Worker"]["replicas"] = num_nodes - 1
    for replica in replicas.values():
        replica["restartPolicy"] = "Never"
        pod = replica["template"]["spec"]
        pod["terminationGracePeriodSeconds"] = AFTER_GRACE_S
        for container in pod["containers"]:
            if container["name"] == kind.container:
                container["command"], container["args"] = program, arguments
