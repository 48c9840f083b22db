"""What the checks of `hagane doctor --gpu` find on the nodes themselves."""

from typing import Any

from components.launch_training.doctor.gpu_job import CHECK, of_all_nodes, said_by
from components.launch_training.doctor.one_off_run import NotStarted, StillPending, logs_of
from components.launch_training.kubernetes_api.client import Cluster
from components.shared.documents.findings import Finding
from components.shared.errors import ClusterError
from components.shared.step import Log

Fields = dict[str, Any]


def probe_gpus(
    cluster: Cluster, job: Fields, *, num_nodes: int, start_s: float, check_s: float, log: Log
) -> list[Finding]:
    """What the checks in all pods of the job said. `start_s`: longest wait for all pods to run;
    `check_s`: for their checks from then on."""
    try:
        logs = logs_of(
            cluster,
            job,
            num_nodes=num_nodes,
            start_s=start_s,
            run_s=check_s,
            asked_by="doctor",
            log=log,
        )
    except StillPending as error:
        longer = "or wait longer (--seconds), or check one node (--gpu-nodes one)"
        return [_failed(error.found, f"{error.fix}; {longer}")]
    except NotStarted as error:
        return [_failed(error.found, error.fix)]
    except ClusterError as error:
        fix = "see the message; a quota, an admission policy or a permission refuses it"
        return [_failed(error.problems[0], fix)]
    return of_all_nodes({pod: said_by(lines) for pod, lines in logs.items()})


def _failed(found: str, fix: str) -> Finding:
    return Finding(check=CHECK, state="failed", found=found, fix=fix)
