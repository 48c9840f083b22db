"""The job of a plan -> one that only checks, by components.train.gpu_check in each pod; their logs
-> findings."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.launch_training.doctor.one_off_job import one_off_job
from components.launch_training.job.kinds import JobKind
from components.shared.documents.findings import Finding, State, finding_of
from components.shared.documents.gpu_check import CheckRequest
from components.shared.events import events_in

Fields = dict[str, Any]
CHECK = "GPU check"
PROGRAM = ["python", "-m", "components.train.gpu_check"]
FROM_BAD_TO_GOOD: tuple[State, ...] = ("failed", "warning", "ok", "skipped")


def gpu_check_job(
    manifest: Fields, kind: JobKind, name: str, *, image: str, request: CheckRequest, longest_s: int
) -> Fields:
    """A job of `request.num_nodes` pods, ended by its controller after `longest_s`."""
    return one_off_job(
        manifest,
        kind,
        name,
        image=image,
        program=PROGRAM,
        arguments=["--request", request.model_dump_json(), "--only-report"],
        num_nodes=request.num_nodes,
        longest_s=longest_s,
    )


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
