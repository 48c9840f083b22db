"""The job of a plan -> one of its own shape that only checks, by components.train.gpu_check in each
pod; their logs -> findings.

It keeps what decides whether training would run: nodes, GPUs, image, resources, account,
environment, volumes, queue.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.launch_training.job.kinds import JobKind
from components.shared.documents.findings import Finding, State, finding_of
from components.shared.documents.gpu_check import CheckRequest
from components.shared.events import events_in
from components.shared.job.training_job import AFTER_GRACE_S

Fields = dict[str, Any]
CHECK = "GPU check"
PROGRAM = ["python", "-m", "components.train.gpu_check"]
FROM_BAD_TO_GOOD: tuple[State, ...] = ("failed", "warning", "ok", "skipped")


def gpu_check_job(
    manifest: Fields, kind: JobKind, name: str, *, image: str, request: CheckRequest, longest_s: int
) -> Fields:
    """A job of `request.num_nodes` pods, ended by its controller after `longest_s`."""
    job = json.loads(json.dumps(manifest))
    kind.with_image(job, image)
    # Whatever is found, the pods succeed: some runtimes would start one that fails anew.
    arguments = ["--request", request.model_dump_json(), "--only-report"]
    if kind.name == "TrainJob":
        job["spec"]["trainer"] |= {
            "command": PROGRAM,
            "args": arguments,
            "numNodes": request.num_nodes,
        }
        job["spec"]["activeDeadlineSeconds"] = longest_s
    else:
        _shape_pytorchjob(
            job["spec"], kind, arguments, num_nodes=request.num_nodes, longest_s=longest_s
        )
    metadata = {"name": name, "labels": job["metadata"]["labels"]}
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": metadata,
        "spec": job["spec"],
    }


def _shape_pytorchjob(
    spec: Fields, kind: JobKind, arguments: list[str], *, num_nodes: int, longest_s: int
) -> None:
    # The pods stay when they are over: what they printed goes with them, and is read only then.
    spec["runPolicy"] |= {
        "cleanPodPolicy": "None",
        "ttlSecondsAfterFinished": 60,
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
                container["command"], container["args"] = PROGRAM, arguments


def said_by(lines: Sequence[str]) -> list[Finding]:
    """The findings in a pod's log; one that says so where there are none."""
    events = list(events_in(lines))
    findings = [finding_of(event) for event in events if event["event"] == "check"]
    if findings:
        return findings
    problems = [
        problem for event in events if event["event"] == "failed" for problem in event["problems"]
    ]
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    if problems:
        found = problems[0]
    else:
        found = f"it reported no check; its last line: {last[:200]}"
    return [
        Finding(
            check=CHECK,
            state="failed",
            found=found,
            fix="look whether the image is of this version of hagane",
        )
    ]


def of_all_nodes(by_node: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """One finding for each check: the worst of all nodes, with the names of those where it is
    so."""
    checks = dict.fromkeys(finding.check for findings in by_node.values() for finding in findings)
    return [_worst(check, by_node) for check in checks]


def _worst(check: str, by_node: Mapping[str, Sequence[Finding]]) -> Finding:
    found = {
        node: each for node, findings in by_node.items() for each in findings if each.check == check
    }
    state = min((each.state for each in found.values()), key=FROM_BAD_TO_GOOD.index)
    nodes = [node for node, each in found.items() if each.state == state]
    first = found[nodes[0]]
    if len(by_node) == 1:
        return first
    if len(nodes) == len(by_node):
        where = f"all {len(nodes)} nodes"
    else:
        where = ", ".join(nodes)
    return first.model_copy(update={"found": f"{first.found} ({where})"})
