"""Recurring runs: what the API does with them."""

import re
import uuid

from tests.support.kfp.answers import Refused, Tree
from tests.support.kfp.definitions import Query
from tests.support.kfp.lists import page
from tests.support.kfp.runs import check_source
from tests.support.kfp.server import ACCOUNT, FINISHED, KfpServer, found, now

KEYS = ("recurring_run_id", "id", "name", "display_name", "created_at", "updated_at", "description")
NAMESPACE = "kubeflow"
"""Where a server of one user keeps its workflows; recurring runs alone say so."""
GET = "Failed to fetch a recurring run: "


def list_recurring_runs(server: KfpServer, query: Query) -> Tree:
    return page(
        "recurringRuns", server.in_scope(server.recurring_runs.values(), query), query, KEYS
    )


def create_recurring_run(server: KfpServer, query: Query, body: Tree) -> Tree:
    if not body.get("display_name"):
        raise Refused(3, "The input job name is empty. Please specify a valid name")
    concurrency = int(body.get("max_concurrency", 0))
    if not 1 <= concurrency <= 10:
        raise Refused(
            3,
            (
                "The max concurrency of the recurring run is out of range. Support 1-10. "
                f"Received {concurrency}"
            ),
        )
    _check_trigger(body.get("trigger", {}))
    check_source(server, body)
    moment, enabled = now(), body.get("mode") != "DISABLE"
    made = {
        "service_account": ACCOUNT,
        **server.with_experiment(body),
        "namespace": server.experiment_namespace(body) or NAMESPACE,
        "recurring_run_id": str(uuid.uuid4()),
        "max_concurrency": str(concurrency),
        "mode": "ENABLE" if enabled else "DISABLE",
        "status": "ENABLED" if enabled else "DISABLED",
        "created_at": moment,
        "updated_at": moment,
    }
    if not made.get("no_catchup"):
        made.pop("no_catchup", None)
    server.recurring_runs[made["recurring_run_id"]] = made
    return made


def get_recurring_run(server: KfpServer, query: Query, recurring_run_id: str) -> Tree:
    return found(server.recurring_runs, "Job", recurring_run_id, doing=GET)


def delete_recurring_run(server: KfpServer, query: Query, recurring_run_id: str) -> Tree:
    found(server.recurring_runs, "Job", recurring_run_id, doing=GET)
    if query.get("propagation_policy") != "ORPHAN":
        for run in server.runs.values():
            if run.get("recurring_run_id") == recurring_run_id and run.get("state") not in FINISHED:
                server.advance(run["run_id"], "FAILED")
    del server.recurring_runs[recurring_run_id]
    return {}


def enable_recurring_run(server: KfpServer, query: Query, recurring_run_id: str) -> Tree:
    """Turned on; the last moment that it missed starts a run at once, or all of them where it is to
    catch up."""
    job = found(server.recurring_runs, "Job", recurring_run_id, doing=GET)
    job.update(mode="ENABLE", status="ENABLED", updated_at=now())
    missed = server.missed.pop(recurring_run_id, 0)
    for _ in range(min(missed, 1) if job.get("no_catchup") else missed):
        server.trigger(recurring_run_id)
    return {}


def disable_recurring_run(server: KfpServer, query: Query, recurring_run_id: str) -> Tree:
    job = found(server.recurring_runs, "Job", recurring_run_id, doing=GET)
    job.update(mode="DISABLE", status="DISABLED", updated_at=now())
    return {}


def _check_trigger(trigger: Tree) -> None:
    cron, seconds = (
        trigger.get("cron_schedule", {}).get("cron"),
        trigger.get("periodic_schedule", {}).get("interval_second"),
    )
    if cron is not None and len(re.sub(r"^(CRON_)?TZ=\S+ ", "", cron).split()) not in (5, 6):
        raise Refused(
            3,
            (
                "Schedule cron is not a supported "
                f"format(https://godoc.org/github.com/robfig/cron). Error: {cron!r}"
            ),
        )
    if cron is None and (seconds is None or int(seconds) < 1):
        raise Refused(
            3,
            f"Found invalid period schedule interval {seconds}. Set at interval to least 1 second",
        )
