"""`python -m components.launch_training.step_probe`: time three optimizer steps of a plan in one
pod of the cluster, made as the run's workers are.

For `hagane plan --probe-pod`. What was measured is in a file, as `components.train.step_probe`
writes it on a machine; nothing is stored, and the job is deleted however this ends.
"""

import argparse
import uuid
from pathlib import Path
from typing import Any

import yaml

from components.launch_training.doctor.one_off_job import one_off_job
from components.launch_training.doctor.one_off_run import logs_of
from components.launch_training.job.kinds import KINDS
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.documents.probe import MeasuredSteps
from components.shared.documents.probe_request import ProbeRequest, probe_request_of
from components.shared.errors import RunFailed, SpecError
from components.shared.events import error_of, events_in
from components.shared.processes import end_with_parent
from components.shared.spec.file import load_spec
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log, step_log

PROGRAM = ["python", "-m", "components.train.step_probe"]
LONGEST_S = 1800
"""For loading the model, which may come from the hub, and four steps."""
ENDED_S = 60
"""For the start of the image, and the end of the pod."""
LAST_LINES = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.launch_training.step_probe", description=__doc__
    )
    parser.add_argument("--spec", metavar="FILE", type=Path, required=True, help="the run's spec")
    parser.add_argument(
        "--manifest", metavar="FILE", type=Path, required=True, help="the job of the spec's plan"
    )
    parser.add_argument(
        "--plan", metavar="FOLDER", type=Path, required=True, help="plan/ of the spec"
    )
    parser.add_argument("--image", required=True, help="what the workers run in")
    parser.add_argument(
        "--start-seconds", type=float, default=600, help="longest wait for the pod to run (600)"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="where what was measured is written"
    )
    arguments = parser.parse_args()
    end_with_parent()
    with step_log("launch_training") as log:
        spec = load_spec(arguments.spec)
        request = probe_request_of(arguments.plan, label_smoothing=spec.training.label_smoothing)
        check_one_pod(request)
        measured = probe_in_pod(
            spec,
            yaml.safe_load(arguments.manifest.read_bytes()),
            request,
            image=arguments.image,
            start_s=arguments.start_seconds,
            log=log,
        )
        arguments.out.write_text(measured.model_dump_json() + "\n")


def check_one_pod(request: ProbeRequest) -> None:
    """Raises SpecError for a plan of several nodes: one pod cannot hold their shares."""
    if request.num_nodes > 1:
        raise SpecError(
            f"--probe-pod: the plan is for {request.num_nodes} nodes, allowed 1, one pod. Fix: "
            "probe one node by --set hardware.num_nodes=1, with its share of training.global_batch"
        )


def probe_in_pod(
    spec: RunSpec,
    manifest: dict[str, Any],
    request: ProbeRequest,
    *,
    image: str,
    start_s: float,
    log: Log,
) -> MeasuredSteps:
    """What the processes of one pod measured.

    `manifest`: the job of the plan; `start_s`: longest wait for the pod to run.

    Raises:
        HaganeError: what the pod refused, with its exit code.
        ClusterError: the job is refused, or its pod did not come to run.
        RunFailed: the steps did not come to an end.
    """
    kind = KINDS[spec.backend]
    cluster = Cluster(spec.cluster.namespace, kind)
    job = one_off_job(
        manifest,
        kind,
        f"hagane-probe-{uuid.uuid4().hex[:8]}",
        image=image,
        program=PROGRAM,
        arguments=["--request", request.model_dump_json(), "--only-report"],
        num_nodes=1,
        longest_s=round(start_s) + LONGEST_S + ENDED_S,
    )
    name = job["metadata"]["name"]
    log.info("probing", job=name, steps="1 to warm up, 3 timed", namespace=cluster.namespace)
    logs = logs_of(
        cluster,
        job,
        num_nodes=1,
        start_s=start_s,
        run_s=LONGEST_S + ENDED_S,
        asked_by="plan --probe-pod",
        log=log,
    )
    (lines,) = logs.values()
    return measured_in(lines)


def measured_in(lines: list[str]) -> MeasuredSteps:
    """What the pod with these lines in its log has measured.

    Raises:
        HaganeError: what it refused, with its exit code.
        RunFailed: it said neither.
    """
    events = list(events_in(lines))
    for event in reversed(events):
        if event["event"] == "probed":
            return MeasuredSteps.of(event)
        if event["event"] == "failed":
            raise error_of(event)
    last = [" ".join(line.split())[:160] for line in lines if line.strip()][-LAST_LINES:]
    said = "; ".join(last) or "nothing"
    raise RunFailed(
        f"--probe-pod: the pod ended without a measurement; its last lines: {said}. Fix: see the "
        "lines; a memory limit that is too low ends a pod without a word"
    )


if __name__ == "__main__":
    main()
