"""Runs: what the API does with them."""

import json
import re
import uuid
from typing import Any

from tests.support.kfp.answers import Refused, Tree
from tests.support.kfp.definitions import Query, get_version
from tests.support.kfp.lists import page
from tests.support.kfp.server import ACCOUNT, FINISHED, NOT_FINISHED, KfpServer, found, now

KEYS = (
    "run_id",
    "id",
    "name",
    "display_name",
    "created_at",
    "finished_at",
    "state",
    "storage_state",
    "status",
    "description",
)
KINDS: dict[str, Any] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "STRUCT": dict,
    "LIST": list,
}
UNRESOLVED = re.compile(r"\{\{(inputs|item|tasks|steps|outputs)\b[^}]*\}\}")
"""Variables of Argo that a workflow's arguments have no value for."""
GET = "Failed to get a run: Failed to fetch run: "


def list_runs(server: KfpServer, query: Query) -> Tree:
    return page("runs", server.in_scope(server.runs.values(), query), query, KEYS)


def create_run(server: KfpServer, query: Query, body: Tree) -> Tree:
    """The answer has the state of the moment; the first report of the workflow then takes it away,
    until Argo has one."""
    if not body.get("display_name"):
        raise Refused(3, "The input run name is empty. Please specify a valid name")
    server.experiment_namespace(body)
    made = add_run(server, {"service_account": ACCOUNT, **body})
    first = {"state": "PENDING", "state_history": made["state_history"][:1]}
    return {key: value for key, value in made.items() if key != "run_details"} | first


def get_run(server: KfpServer, query: Query, run_id: str) -> Tree:
    run = found(server.runs, "Run", run_id, doing=GET)
    if server.course:
        server.advance(run_id, **server.course.pop(0))
    if server.on_look is not None:
        server.on_look(run_id)
    return run


def delete_run(server: KfpServer, query: Query, run_id: str) -> Tree:
    found(server.runs, "Run", run_id, doing=GET)
    del server.runs[run_id]
    return {}


def terminate_run(server: KfpServer, query: Query, run_id: str) -> Tree:
    """The run is CANCELING. When its workflow has ended it is FAILED, as nothing in the server
    writes CANCELED."""
    run = found(server.runs, "Run", run_id, doing=GET)
    if run.get("state") in FINISHED:
        raise Refused(
            3,
            (
                f"Failed to terminate run {run_id}. The run is already in a terminal state: "
                f"{run['state']}"
            ),
        )
    server.advance(run_id, "CANCELING")
    if server.on_terminate is not None:
        server.on_terminate(run_id)
    return {}


def retry_run(server: KfpServer, query: Query, run_id: str) -> Tree:
    """What failed and what was left out is done again, under the same id. The exit task stays as it
    ended."""
    if found(server.runs, "Run", run_id, doing=GET).get("state") not in ("FAILED", "CANCELED"):
        raise Refused(3, "Only failed/error runs can be retried")
    steps = server.steps[run_id]
    for key in [
        key
        for key, step in steps.items()
        if step.state in ("FAILED", "OMITTED") and key != "end-run"
    ]:
        del steps[key]
    server.advance(run_id, "RUNNING")
    return {}


def archive_run(server: KfpServer, query: Query, run_id: str) -> Tree:
    found(server.runs, "Run", run_id, doing=GET)["storage_state"] = "ARCHIVED"
    return {}


def unarchive_run(server: KfpServer, query: Query, run_id: str) -> Tree:
    found(server.runs, "Run", run_id, doing=GET)["storage_state"] = "AVAILABLE"
    return {}


def node_log(server: KfpServer, query: Query, run_id: str, node_id: str) -> str:
    """What the pod of a node printed. An unknown one is an error of status 200, by the body
    alone."""
    if (run_id, node_id) in server.logs:
        return server.logs[run_id, node_id]
    reason = f"Failed to read logs for run {run_id}: BadRequestError: no log of {node_id}"
    return json.dumps({"error_message": reason, "error_details": reason})


def add_run(server: KfpServer, body: Tree) -> Tree:
    check_source(server, body)
    moment = now()
    made = {
        **server.with_experiment(body),
        "run_id": str(uuid.uuid4()),
        "storage_state": "AVAILABLE",
        "created_at": moment,
        "scheduled_at": moment,
        "finished_at": NOT_FINISHED,
        "state_history": [{"update_time": moment, "state": "PENDING"}, {"update_time": moment}],
        "run_details": {"task_details": []},
    }
    server.runs[made["run_id"]] = made
    server.steps[made["run_id"]] = {}
    return made


def check_source(server: KfpServer, body: Tree) -> None:
    """The pipeline is there, and the parameters are those it asks for, of its types."""
    asked = _spec_of(server, body)["root"].get("inputDefinitions", {}).get("parameters", {})
    given = body.get("runtime_config", {}).get("parameters", {})
    doing = "Failed to create a new run: invalid pipeline job inputs: Invalid input error: "
    unknown = [name for name in given if name not in asked]
    if unknown:
        raise Refused(
            3,
            f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}",
            doing=doing,
        )
    for name, value in given.items():
        if not isinstance(value, KINDS[asked[name]["parameterType"]]):
            raise Refused(
                3,
                f"parameter {name} must be {asked[name]['parameterType']}, found {value!r}",
                doing=doing,
            )
    for name, definition in asked.items():
        if (
            name not in given
            and "defaultValue" not in definition
            and not definition.get("isOptional")
        ):
            raise Refused(3, f"parameter {name} is required and was not given", doing=doing)
    if unresolved := UNRESOLVED.search(json.dumps(given, ensure_ascii=False)):
        reason = (
            "Failed to validate workflow for (): templates.entrypoint.tasks.root-driver failed to "
            f"resolve {unresolved[0]}"
        )
        raise Refused(13, reason, doing="Failed to create a new run: InternalServerError: ")


def _spec_of(server: KfpServer, body: Tree) -> Tree:
    reference = body.get("pipeline_version_reference", {})
    spec = body.get("pipeline_spec")
    if spec is None and not reference.get("pipeline_id"):
        raise Refused(
            3,
            (
                "Cannot find a pipeline source: neither a pipeline spec nor a pipeline version "
                "reference is given"
            ),
        )
    if spec is None:
        found(server.pipelines, "Pipeline", reference["pipeline_id"])
        newest = [
            key
            for key, each in server.versions.items()
            if each["pipeline_id"] == reference["pipeline_id"]
        ][-1:]
        version_id = reference.get("pipeline_version_id") or "".join(newest)
        spec = get_version(server, {}, reference["pipeline_id"], version_id)["pipeline_spec"]
    return spec.get("pipeline_spec", spec)
