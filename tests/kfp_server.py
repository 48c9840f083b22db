"""A stand-in for the API server of Kubeflow Pipelines 2.17, over real HTTP. The real one cannot run here: it wants MySQL, an object
store and Argo Workflows. Everything is in this one file.

Kept to: paths, query parameters, bodies and answers are those of kfp-server-api's published models; each request and each answer is
held against them as it passes, and what they do not name is refused (tests/unit/test_kfp_server.py shows it for every route). Written
from kubeflow/pipelines' sources at 2.17 (backend/src/apiserver/server): which fields are required, the error bodies of the gateway
(google.rpc.Status) and of the two upload paths (error_message, error_details), unique names, pages of at most 200 whose token holds
for one order and filter only, 64-bit numbers as text, namespaces wanted where users are many and refused where they are one.

Limits, where the real server does more or otherwise:
- Nothing is executed. A run stands at PENDING until a test says otherwise: `advance`, or `course`, one entry for each look at a run.
- No schedule fires by the clock: `trigger` makes the run that a recurring run would.
- A field that no published model names is refused; the real server passes it over. Filters know AND of EQUALS, NOT_EQUALS, IN and
  IS_SUBSTRING; other operators are answered 501, as are PATCH and making a version from a URL.
- A cron expression is counted (5 or 6 fields), not read.
- Deleting a recurring run fails its active runs unless asked to orphan them: what kubeflow/pipelines#7421 saw, at its worst.
- No TLS, one bearer token for everyone, no roles: `forbidden` namespaces answer 403.
"""

import base64
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api.models
import yaml

Tree = dict[str, Any]
PREFIX = "/apis/v2beta1"
FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
HTTP_STATUS = {3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 9: 400, 12: 501, 13: 500, 14: 503, 16: 401}
"""gRPC code -> HTTP status, as grpc-gateway maps them (runtime/errors.go)."""
GRPC_CODE = {status: code for code, status in reversed(HTTP_STATUS.items())}
OPERATIONS = ("OPERATION_UNSPECIFIED", "EQUALS", "NOT_EQUALS", "GREATER_THAN", "", "GREATER_THAN_EQUALS", "LESS_THAN", "LESS_THAN_EQUALS")
OPERATIONS += ("IN", "IS_SUBSTRING")
"""By their numbers in filter.proto, which kfp.Client sends; 4 is not given away there."""
LOGIN_PAGE = b"<!doctype html><title>Log in to Dex</title><form method=post></form>"


class Refused(Exception):
    """An answer that is no: a gRPC code and what the user is told."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def unknown_fields(model: str, tree: Any, where: str = "") -> list[str]:
    """A line for each place of a JSON tree that kfp-server-api's model of this name, such as `V2beta1Run`, does not have."""
    if tree is None or model == "object":
        return []
    if found := re.fullmatch(r"list\[(.*)]", model):
        if not isinstance(tree, list):
            return [f"{where}: must be a list"]
        return [line for index, each in enumerate(tree) for line in unknown_fields(found[1], each, f"{where}.{index}")]
    if found := re.fullmatch(r"dict\(str, (.*)\)", model):
        if not isinstance(tree, dict):
            return [f"{where}: must be an object"]
        return [line for key, each in tree.items() for line in unknown_fields(found[1], each, f"{where}.{key}")]
    primitive = {"str": str, "int": int, "bool": bool, "datetime": str}.get(model)
    if primitive is not None:
        wrong = type(tree) is not primitive or (model == "datetime" and not re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", tree))
        return [f"{where}: {tree!r} is no {model}"] if wrong else []
    published = getattr(kfp_server_api.models, model)
    if not published.openapi_types:
        allowed = {value for name, value in vars(published).items() if name.isupper()}
        return [] if tree in allowed else [f"{where}: {tree!r} is none of {sorted(allowed)}"]
    if not isinstance(tree, dict):
        return [f"{where}: must be an object"]
    types = {published.attribute_map[attribute]: kind for attribute, kind in published.openapi_types.items()}
    lines = [f"{where}.{key}: {model} has no such field" for key in tree if key not in types]
    return lines + [line for key, each in tree.items() if key in types for line in unknown_fields(types[key], each, f"{where}.{key}")]


@dataclass
class Asked:
    """A request as it came in, and the status it got; 0 where the connection was dropped."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    status: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Fault:
    """What the next `times` requests meet whose method and path match."""

    match: str
    """Regular expression for `METHOD /path`, without the prefix: `POST /runs$`."""
    kind: Literal["status", "slow", "drop", "drop after", "login page", "no such page"]
    status: int = 0
    seconds: float = 0.0
    times: int = 1_000_000


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    """Below the prefix, with `{names}` as the published client writes them."""
    handler: Callable[..., Any]
    answer: str = "object"
    """Published model of the answer."""
    query: tuple[str, ...] = ()
    body: str | None = None
    """Published model of the body; None for none, `multipart` for a file."""


@dataclass
class KfpServer:
    """The server's state, and what a test may do to it. Every public method may be called while it serves."""

    multi_user: bool = False
    token: str | None = None
    """The bearer token that every request must bring; None asks for none."""
    forbidden: set[str] = field(default_factory=set)
    """Namespaces that nobody may use."""
    endpoint: str = ""
    experiments: dict[str, Tree] = field(default_factory=dict)
    pipelines: dict[str, Tree] = field(default_factory=dict)
    versions: dict[str, Tree] = field(default_factory=dict)
    runs: dict[str, Tree] = field(default_factory=dict)
    recurring_runs: dict[str, Tree] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    course: list[Tree] = field(default_factory=list)
    """Keyword arguments of `advance`, one entry used up each time a run is looked at."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        if not self.multi_user:
            self._add_experiment({"display_name": "Default", "description": "All runs created without specifying an experiment."})

    # What a test says

    def fail(self, match: str, status: int, *, times: int = 1_000_000) -> None:
        """Requests that match are answered with this status and the real server's kind of body."""
        self.faults.append(Fault(match, "status", status=status, times=times))

    def slow(self, match: str, seconds: float, *, times: int = 1_000_000) -> None:
        self.faults.append(Fault(match, "slow", seconds=seconds, times=times))

    def drop(self, match: str, *, after: bool = False, times: int = 1) -> None:
        """The connection is closed without an answer: before the request is obeyed, or `after` it was."""
        self.faults.append(Fault(match, "drop after" if after else "drop", times=times))

    def login_page(self, match: str = ".") -> None:
        """Requests that match get a proxy's page to log in, with status 200."""
        self.faults.append(Fault(match, "login page"))

    def advance(self, run_id: str, state: str, *, tasks: dict[str, str] | None = None, error: str = "") -> None:
        """The run is in this state, its tasks (display name -> state) in these; a failed task and the run get `error`."""
        with self.lock:
            run, now = self.runs[run_id], _now()
            if run["state"] != state:
                run["state"] = state
                run["state_history"].append({"update_time": now, "state": state})
            if state in FINISHED:
                run["finished_at"] = now
            if error:
                run["error"] = {"code": 13, "message": error}
            details = run["run_details"]["task_details"]
            for name, task_state in (tasks or {}).items():
                task: Tree | None = next((each for each in details if each["display_name"] == name), None)
                if task is None:
                    task = {"run_id": run_id, "task_id": str(uuid.uuid4()), "display_name": name, "create_time": now}
                    task["start_time"] = now
                    details.append(task)
                task["state"] = task_state
                if task_state in FINISHED:
                    task["end_time"] = now
                if task_state == "FAILED" and error:
                    task["error"] = {"code": 13, "message": error}

    def trigger(self, recurring_run_id: str) -> str:
        """A run as the schedule would start it. Returns its id."""
        with self.lock:
            job = self.recurring_runs[recurring_run_id]
            kept = ("experiment_id", "pipeline_spec", "pipeline_version_reference", "runtime_config", "service_account")
            run = {"display_name": f"{job['display_name']}-{len(self.runs)}", **{key: job[key] for key in kept if key in job}}
            made = self._add_run(run, job["namespace"])
            made |= {"recurring_run_id": recurring_run_id, "scheduled_at": _now()}
            return made["run_id"]

    def called(self, match: str) -> list[Asked]:
        """The requests so far whose `METHOD /path` match."""
        with self.lock:
            return [each for each in self.asked if re.search(match, str(each))]

    def no_such_page(self, match: str = ".") -> None:
        """Requests that match get the 404 of a web server that is not KFP."""
        self.faults.append(Fault(match, "no such page"))

    # Experiments

    def list_experiments(self, query: dict[str, str]) -> Tree:
        self._check_namespace(query.get("namespace", ""))
        found = [each for each in self.experiments.values() if each["namespace"] == query.get("namespace", "")]
        return _page("experiments", found, query, ("experiment_id", "id", "name", "display_name", "created_at", "storage_state"))

    def create_experiment(self, query: dict[str, str], body: Tree) -> Tree:
        self._check_namespace(body.get("namespace", ""))
        if not body.get("display_name"):
            raise Refused(3, "Experiment name is empty. Please specify a valid experiment name")
        names = [each["display_name"] for each in self.experiments.values() if each["namespace"] == body.get("namespace", "")]
        if body["display_name"] in names:
            raise Refused(
                6, f"Failed to create a new experiment. The name {body['display_name']} already exists. Please specify a new name"
            )
        return self._add_experiment(body)

    def get_experiment(self, query: dict[str, str], experiment_id: str) -> Tree:
        return _found(self.experiments, "Experiment", experiment_id)

    def archive_experiment(self, query: dict[str, str], experiment_id: str) -> Tree:
        _found(self.experiments, "Experiment", experiment_id)["storage_state"] = "ARCHIVED"
        return {}

    def unarchive_experiment(self, query: dict[str, str], experiment_id: str) -> Tree:
        _found(self.experiments, "Experiment", experiment_id)["storage_state"] = "AVAILABLE"
        return {}

    def delete_experiment(self, query: dict[str, str], experiment_id: str) -> Tree:
        _found(self.experiments, "Experiment", experiment_id)
        del self.experiments[experiment_id]
        return {}

    def _add_experiment(self, body: Tree) -> Tree:
        made = {"experiment_id": str(uuid.uuid4()), "created_at": _now(), "storage_state": "AVAILABLE", "namespace": "", **body}
        self.experiments[made["experiment_id"]] = made
        return made

    # Pipelines and their versions

    def list_pipelines(self, query: dict[str, str]) -> Tree:
        found = [each for each in self.pipelines.values() if each["namespace"] == self._pipeline_namespace(query)]
        return _page("pipelines", found, query, ("pipeline_id", "id", "name", "display_name", "created_at", "description"))

    def create_pipeline(self, query: dict[str, str], body: Tree) -> Tree:
        return self._add_pipeline(body, self._pipeline_namespace(body))

    def get_pipeline(self, query: dict[str, str], pipeline_id: str) -> Tree:
        return _found(self.pipelines, "Pipeline", pipeline_id)

    def get_pipeline_by_name(self, query: dict[str, str], name: str) -> Tree:
        namespace = self._pipeline_namespace(query)
        found = [each for each in self.pipelines.values() if (each["name"], each["namespace"]) == (name, namespace)]
        if not found:
            raise Refused(5, f"Pipeline {name} not found.")
        return found[0]

    def delete_pipeline(self, query: dict[str, str], pipeline_id: str) -> Tree:
        _found(self.pipelines, "Pipeline", pipeline_id)
        versions = [key for key, each in self.versions.items() if each["pipeline_id"] == pipeline_id]
        if versions and query.get("cascade") != "true":
            raise Refused(3, f"Failed to delete pipeline {pipeline_id} as it has {len(versions)} versions; delete them or set cascade")
        for version_id in versions:
            del self.versions[version_id]
        del self.pipelines[pipeline_id]
        return {}

    def list_versions(self, query: dict[str, str], pipeline_id: str) -> Tree:
        _found(self.pipelines, "Pipeline", pipeline_id)
        found = [each for each in self.versions.values() if each["pipeline_id"] == pipeline_id]
        return _page("pipeline_versions", found, query, ("pipeline_version_id", "id", "name", "display_name", "created_at", "description"))

    def get_version(self, query: dict[str, str], pipeline_id: str, pipeline_version_id: str) -> Tree:
        found = _found(self.versions, "PipelineVersion", pipeline_version_id)
        if found["pipeline_id"] != pipeline_id:
            raise Refused(5, f"PipelineVersion {pipeline_version_id} not found.")
        return found

    def delete_version(self, query: dict[str, str], pipeline_id: str, pipeline_version_id: str) -> Tree:
        self.get_version(query, pipeline_id, pipeline_version_id)
        del self.versions[pipeline_version_id]
        return {}

    def upload_pipeline(self, query: dict[str, str], filename: str, content: bytes) -> Tree:
        name = query.get("name") or query.get("display_name") or filename
        spec = _spec_of(content)
        made = self._add_pipeline({**_given(query, "description", "display_name"), "name": name}, self._pipeline_namespace(query))
        self._add_version(made["pipeline_id"], {"name": name, **_given(query, "description", "display_name")}, spec)
        return made

    def upload_version(self, query: dict[str, str], filename: str, content: bytes) -> Tree:
        if query.get("pipelineid") not in self.pipelines:
            raise Refused(3, "Failed to create a pipeline version")
        body: Tree = {"name": query.get("name") or query.get("display_name") or filename}
        body |= _given(query, "description", "display_name")
        if "tags" in query:
            body["tags"] = json.loads(query["tags"])
        return self._add_version(query["pipelineid"], body, _spec_of(content))

    def _add_pipeline(self, body: Tree, namespace: str) -> Tree:
        if not body.get("name"):
            raise Refused(3, "name is required")
        if any((each["name"], each["namespace"]) == (body["name"], namespace) for each in self.pipelines.values()):
            raise Refused(6, f"Failed to create a new pipeline. The name {body['name']} already exists. Please specify a new name")
        made = {"pipeline_id": str(uuid.uuid4()), "display_name": body["name"], **body, "created_at": _now(), "namespace": namespace}
        self.pipelines[made["pipeline_id"]] = made
        return made

    def _add_version(self, pipeline_id: str, body: Tree, spec: Tree) -> Tree:
        if any((each["pipeline_id"], each["name"]) == (pipeline_id, body["name"]) for each in self.versions.values()):
            raise Refused(6, "Failed to create a pipeline version")
        ids = {"pipeline_id": pipeline_id, "pipeline_version_id": str(uuid.uuid4())}
        made = {**ids, "display_name": body["name"], **body, "created_at": _now(), "pipeline_spec": spec}
        self.versions[ids["pipeline_version_id"]] = made
        return made

    # Runs

    def list_runs(self, query: dict[str, str]) -> Tree:
        found = self._in_scope(self.runs.values(), query)
        keys = ("run_id", "id", "name", "display_name", "created_at", "finished_at", "state", "storage_state", "status", "description")
        return _page("runs", found, query, keys)

    def create_run(self, query: dict[str, str], body: Tree) -> Tree:
        if not body.get("display_name"):
            raise Refused(3, "The input run name is empty. Please specify a valid name")
        return self._add_run(body, self._experiment_namespace(body))

    def get_run(self, query: dict[str, str], run_id: str) -> Tree:
        run = _found(self.runs, "Run", run_id)
        if self.course:
            self.advance(run_id, **self.course.pop(0))
        return run

    def delete_run(self, query: dict[str, str], run_id: str) -> Tree:
        _found(self.runs, "Run", run_id)
        del self.runs[run_id]
        return {}

    def terminate_run(self, query: dict[str, str], run_id: str) -> Tree:
        run = _found(self.runs, "Run", run_id)
        if run["state"] in FINISHED:
            raise Refused(3, f"Failed to terminate run {run_id}. The run is already in a terminal state: {run['state']}")
        self.advance(run_id, "CANCELING")
        return {}

    def retry_run(self, query: dict[str, str], run_id: str) -> Tree:
        if _found(self.runs, "Run", run_id)["state"] not in ("FAILED", "CANCELED"):
            raise Refused(3, "Only failed/error runs can be retried")
        self.advance(run_id, "PENDING")
        return {}

    def archive_run(self, query: dict[str, str], run_id: str) -> Tree:
        _found(self.runs, "Run", run_id)["storage_state"] = "ARCHIVED"
        return {}

    def unarchive_run(self, query: dict[str, str], run_id: str) -> Tree:
        _found(self.runs, "Run", run_id)["storage_state"] = "AVAILABLE"
        return {}

    def _add_run(self, body: Tree, namespace: str) -> Tree:
        self._check_source(body)
        now = _now()
        made = {
            **self._with_experiment(body),
            "run_id": str(uuid.uuid4()),
            "storage_state": "AVAILABLE",
            "created_at": now,
            "scheduled_at": now,
            "state": "PENDING",
            "state_history": [{"update_time": now, "state": "PENDING"}],
            "run_details": {"task_details": []},
        }
        self.runs[made["run_id"]] = made
        return made

    # Recurring runs

    def list_recurring_runs(self, query: dict[str, str]) -> Tree:
        found = self._in_scope(self.recurring_runs.values(), query)
        keys = ("recurring_run_id", "id", "name", "display_name", "created_at", "updated_at", "description")
        return _page("recurringRuns", found, query, keys)

    def create_recurring_run(self, query: dict[str, str], body: Tree) -> Tree:
        if not body.get("display_name"):
            raise Refused(3, "The input job name is empty. Please specify a valid name")
        concurrency = int(body.get("max_concurrency", 0))
        if not 1 <= concurrency <= 10:
            raise Refused(3, f"The max concurrency of the recurring run is out of range. Support 1-10. Received {concurrency}")
        trigger = body.get("trigger", {})
        cron, seconds = trigger.get("cron_schedule", {}).get("cron"), trigger.get("periodic_schedule", {}).get("interval_second")
        if cron is not None and len(re.sub(r"^(CRON_)?TZ=\S+ ", "", cron).split()) not in (5, 6):
            raise Refused(3, f"Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). Error: {cron!r}")
        if cron is None and (seconds is None or int(seconds) < 1):
            raise Refused(3, f"Found invalid period schedule interval {seconds}. Set at interval to least 1 second")
        self._check_source(body)
        now = _now()
        enabled = body.get("mode") != "DISABLE"
        made = {
            **self._with_experiment(body),
            "namespace": self._experiment_namespace(body),
            "recurring_run_id": str(uuid.uuid4()),
            "max_concurrency": str(concurrency),
            "mode": "ENABLE" if enabled else "DISABLE",
            "status": "ENABLED" if enabled else "DISABLED",
            "created_at": now,
            "updated_at": now,
        }
        self.recurring_runs[made["recurring_run_id"]] = made
        return made

    def get_recurring_run(self, query: dict[str, str], recurring_run_id: str) -> Tree:
        return _found(self.recurring_runs, "Job", recurring_run_id)

    def delete_recurring_run(self, query: dict[str, str], recurring_run_id: str) -> Tree:
        _found(self.recurring_runs, "Job", recurring_run_id)
        if query.get("propagation_policy") != "ORPHAN":
            for run in self.runs.values():
                if run.get("recurring_run_id") == recurring_run_id and run["state"] not in FINISHED:
                    self.advance(run["run_id"], "FAILED", error="the workflow is gone with its schedule")
        del self.recurring_runs[recurring_run_id]
        return {}

    def enable_recurring_run(self, query: dict[str, str], recurring_run_id: str) -> Tree:
        _found(self.recurring_runs, "Job", recurring_run_id).update(mode="ENABLE", status="ENABLED", updated_at=_now())
        return {}

    def disable_recurring_run(self, query: dict[str, str], recurring_run_id: str) -> Tree:
        _found(self.recurring_runs, "Job", recurring_run_id).update(mode="DISABLE", status="DISABLED", updated_at=_now())
        return {}

    def healthz(self, query: dict[str, str]) -> Tree:
        return {"multi_user": self.multi_user, "pipeline_store": "database"}

    # What several of them check

    def _check_namespace(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise Refused(3, "A namespace is required in multi-user mode")
        if namespace and not self.multi_user:
            raise Refused(3, "In single-user mode, a namespace cannot be given")
        if namespace in self.forbidden:
            raise Refused(7, f"User 'somebody' is not authorized with reason: may not use namespace {namespace}")

    def _pipeline_namespace(self, given: Tree) -> str:
        """Pipelines may be shared by all namespaces, which an empty one says."""
        namespace = given.get("namespace", "")
        if namespace or not self.multi_user:
            self._check_namespace(namespace)
        return namespace

    def _experiment_namespace(self, body: Tree) -> str:
        experiment = self.experiments.get(self._with_experiment(body)["experiment_id"])
        assert experiment is not None
        self._check_namespace(experiment["namespace"])
        return experiment["namespace"]

    def _with_experiment(self, body: Tree) -> Tree:
        """The body with its experiment, the default one where it names none."""
        default = next((key for key, each in self.experiments.items() if each["display_name"] == "Default"), None)
        experiment_id = body.get("experiment_id") or default
        if experiment_id is None:
            raise Refused(3, "Experiment id is required in multi-user mode")
        _found(self.experiments, "Experiment", experiment_id)
        return {**body, "experiment_id": experiment_id}

    def _in_scope(self, objects: Any, query: dict[str, str]) -> list[Tree]:
        experiment_id = query.get("experiment_id")
        if experiment_id:
            return [each for each in objects if each["experiment_id"] == experiment_id]
        namespace = query.get("namespace", "")
        self._check_namespace(namespace)
        return [each for each in objects if self.experiments[each["experiment_id"]]["namespace"] == namespace]

    def _check_source(self, body: Tree) -> None:
        """The pipeline is there, and the parameters are those it asks for, of its types."""
        reference = body.get("pipeline_version_reference", {})
        spec = body.get("pipeline_spec")
        if spec is None and not reference.get("pipeline_id"):
            raise Refused(3, "Cannot find a pipeline source: neither a pipeline spec nor a pipeline version reference is given")
        if spec is None:
            _found(self.pipelines, "Pipeline", reference["pipeline_id"])
            newest = [key for key, each in self.versions.items() if each["pipeline_id"] == reference["pipeline_id"]][-1:]
            version_id = reference.get("pipeline_version_id") or "".join(newest)
            spec = self.get_version({}, reference["pipeline_id"], version_id)["pipeline_spec"]
        spec = spec.get("pipeline_spec", spec)
        asked = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        given = body.get("runtime_config", {}).get("parameters", {})
        kinds = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool, "STRUCT": dict, "LIST": list}
        for name, value in given.items():
            if name not in asked:
                raise Refused(3, f"parameter {name} is not an input of the pipeline, which has {sorted(asked)}")
            if not isinstance(value, kinds[asked[name]["parameterType"]]):
                raise Refused(3, f"parameter {name} must be {asked[name]['parameterType']}, found {value!r}")
        for name, definition in asked.items():
            if name not in given and "defaultValue" not in definition and not definition.get("isOptional"):
                raise Refused(3, f"parameter {name} is required and was not given")


PAGE = ("page_token", "page_size", "sort_by", "filter")
_EXPERIMENT, _PIPELINE, _VERSION = "/experiments/{experiment_id}", "/pipelines/{pipeline_id}", "/versions/{pipeline_version_id}"
_RUN, _JOB = "/runs/{run_id}", "/recurringruns/{recurring_run_id}"
_S = KfpServer
ROUTES = (
    Route("GET", "/healthz", _S.healthz, "V2beta1GetHealthzResponse"),
    Route("GET", "/experiments", _S.list_experiments, "V2beta1ListExperimentsResponse", (*PAGE, "namespace")),
    Route("POST", "/experiments", _S.create_experiment, "V2beta1Experiment", body="V2beta1Experiment"),
    Route("GET", _EXPERIMENT, _S.get_experiment, "V2beta1Experiment"),
    Route("DELETE", _EXPERIMENT, _S.delete_experiment),
    Route("POST", _EXPERIMENT + ":archive", _S.archive_experiment),
    Route("POST", _EXPERIMENT + ":unarchive", _S.unarchive_experiment),
    Route("GET", "/pipelines", _S.list_pipelines, "V2beta1ListPipelinesResponse", (*PAGE, "namespace")),
    Route("POST", "/pipelines", _S.create_pipeline, "V2beta1Pipeline", body="V2beta1Pipeline"),
    Route("GET", "/pipelines/names/{name}", _S.get_pipeline_by_name, "V2beta1Pipeline", ("namespace",)),
    Route("GET", _PIPELINE, _S.get_pipeline, "V2beta1Pipeline"),
    Route("DELETE", _PIPELINE, _S.delete_pipeline, query=("cascade",)),
    Route("GET", _PIPELINE + "/versions", _S.list_versions, "V2beta1ListPipelineVersionsResponse", PAGE),
    Route("GET", _PIPELINE + _VERSION, _S.get_version, "V2beta1PipelineVersion"),
    Route("DELETE", _PIPELINE + _VERSION, _S.delete_version),
    Route(
        "POST",
        "/pipelines/upload",
        _S.upload_pipeline,
        "V2beta1Pipeline",
        ("name", "display_name", "description", "namespace", "tags"),
        "multipart",
    ),
    Route(
        "POST",
        "/pipelines/upload_version",
        _S.upload_version,
        "V2beta1PipelineVersion",
        ("name", "display_name", "pipelineid", "description", "tags"),
        "multipart",
    ),
    Route("GET", "/runs", _S.list_runs, "V2beta1ListRunsResponse", (*PAGE, "namespace", "experiment_id")),
    Route("POST", "/runs", _S.create_run, "V2beta1Run", ("experiment_id",), "V2beta1Run"),
    Route("GET", _RUN, _S.get_run, "V2beta1Run", ("experiment_id",)),
    Route("DELETE", _RUN, _S.delete_run, query=("experiment_id",)),
    Route("POST", _RUN + ":terminate", _S.terminate_run, query=("experiment_id",)),
    Route("POST", _RUN + ":retry", _S.retry_run, query=("experiment_id",)),
    Route("POST", _RUN + ":archive", _S.archive_run, query=("experiment_id",)),
    Route("POST", _RUN + ":unarchive", _S.unarchive_run, query=("experiment_id",)),
    Route("GET", "/recurringruns", _S.list_recurring_runs, "V2beta1ListRecurringRunsResponse", (*PAGE, "namespace", "experiment_id")),
    Route("POST", "/recurringruns", _S.create_recurring_run, "V2beta1RecurringRun", body="V2beta1RecurringRun"),
    Route("GET", _JOB, _S.get_recurring_run, "V2beta1RecurringRun"),
    Route("DELETE", _JOB, _S.delete_recurring_run, query=("propagation_policy",)),
    Route("POST", _JOB + ":enable", _S.enable_recurring_run),
    Route("POST", _JOB + ":disable", _S.disable_recurring_run),
)


@contextmanager
def kfp_server(*, multi_user: bool = False, token: str | None = None) -> Iterator[KfpServer]:
    """A server with nothing in it, at `endpoint` on a free port of this machine, until the block ends."""
    server = KfpServer(multi_user=multi_user, token=token)
    handler = type("Handler", (_Handler,), {"server_state": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    server.endpoint = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: ClassVar[KfpServer]
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: 40 ms less for each
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `asked` holds every request."""

    def _serve(self) -> None:
        state = self.server_state
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, url.path.removeprefix(PREFIX), dict(parse_qsl(url.query, keep_blank_values=False)), None)
        with state.lock:
            state.asked.append(asked)
            fault = next((each for each in state.faults if each.times and re.search(each.match, str(asked))), None)
            if fault is not None:
                fault.times -= 1
        kind = fault.kind if fault else None
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        if kind == "drop":
            self.close_connection = True
            return
        if kind == "login page":
            self._send(200, LOGIN_PAGE, "text/html; charset=utf-8")
            return
        if kind == "no such page":
            self._send(404, b"<h1>404 Not Found</h1>", "text/html")
            return
        if fault and kind == "status":
            answer = GRPC_CODE.get(fault.status, 13), f"told to answer {fault.status}"
            asked.status = fault.status
            self._send(fault.status, json.dumps(_error_body(*answer, upload="/upload" in asked.path)).encode())
            return
        asked.status, answer = self._answer(asked, raw)
        if kind == "drop after":
            self.close_connection = True
            return
        self._send(asked.status, json.dumps(answer).encode())

    def _answer(self, asked: Asked, raw: bytes) -> tuple[int, Tree]:
        state = self.server_state
        upload = "/upload" in asked.path
        try:
            with state.lock:
                if state.token is not None and self.headers.get("authorization") != f"Bearer {state.token}":
                    raise Refused(16, "Request header error: there is no user identity header.")
                route, names = _route_of(asked)
                arguments: tuple[Any, ...] = ()
                if route.body == "multipart":
                    arguments = _file_of(self.headers.get("Content-Type", ""), raw)
                elif route.body is not None:
                    asked.body = json.loads(raw or b"{}")
                    _refuse_unknown(route.body, asked.body)
                    arguments = (asked.body,)
                unknown = asked.query.keys() - set(route.query)
                if unknown:
                    raise Refused(3, f"{asked}: no query parameter {sorted(unknown)}; allowed: {sorted(route.query)}")
                answer = json.loads(json.dumps(route.handler(state, asked.query, *arguments, **names)))
            _refuse_unknown(route.answer, answer)
            return 200, answer
        except Refused as refused:
            status = HTTP_STATUS[refused.code]
            return status, _error_body(refused.code, refused.message, upload=upload)

    def _send(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _route_of(asked: Asked) -> tuple[Route, dict[str, str]]:
    for route in ROUTES:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/:]+)", re.escape(route.path))
        if route.method == asked.method and (found := re.fullmatch(pattern, asked.path)):
            return route, {name: unquote(value) for name, value in found.groupdict().items()}
    raise Refused(12, f"{asked}: the stand-in has no such path")


def _refuse_unknown(model: str, tree: Any) -> None:
    unknown = unknown_fields(model, tree, model)
    if unknown:
        raise Refused(3, "; ".join(unknown))


def _error_body(code: int, message: str, *, upload: bool) -> Tree:
    """What the real server says: of the gateway, or of the upload paths, which are plain HTTP handlers."""
    if upload:
        return {"error_message": message, "error_details": message}
    detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": message}
    return {"code": code, "message": f"Failed with error: {message}", "details": [detail]}


def _file_of(content_type: str, raw: bytes) -> tuple[str, bytes]:
    """Name and content of the form's field `uploadfile`."""
    message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + raw)
    for part in message.walk():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            return str(part.get_filename()), content
    raise Refused(3, "Failed to read pipeline from file")


def _spec_of(content: bytes) -> Tree:
    """The pipeline's IR, beside the platform's where the file has one, as the real server gives them back."""
    try:
        documents = [each for each in yaml.safe_load_all(content) if each]
    except yaml.YAMLError:
        documents = []
    if not documents or not {"pipelineInfo", "root", "deploymentSpec"} <= documents[0].keys():
        raise Refused(3, "Failed to create a pipeline version: invalid input: unknown template format")
    return documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def _given(query: dict[str, str], *names: str) -> Tree:
    return {name: query[name] for name in names if name in query}


def _found(objects: dict[str, Tree], kind: str, key: str) -> Tree:
    if key not in objects:
        raise Refused(5, f"{kind} {key} not found.")
    return objects[key]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _page(name: str, objects: list[Tree], query: dict[str, str], keys: tuple[str, ...]) -> Tree:
    """One page of what the filter leaves, in order; the token of the next one holds for this order and filter alone."""
    found = [each for each in objects if _passes(each, query.get("filter", ""), keys)]
    by, _, order = query.get("sort_by", "").partition(" ")
    if by and (by not in keys or order not in ("", "asc", "desc")):
        raise Refused(3, f"Invalid sorting field: {by!r}; supported: {keys}")
    found = [each for _, each in sorted(enumerate(found), key=lambda pair: (str(pair[1].get(by or "created_at", "")), pair[0]))]
    if order == "desc":
        found.reverse()
    criteria = [query.get("sort_by", ""), query.get("filter", "")]
    start = 0
    if "page_token" in query:
        try:
            start, *asked_before = json.loads(base64.b64decode(query["page_token"]))
        except ValueError:
            raise Refused(3, "Invalid package token.") from None
        if asked_before != criteria and criteria != ["", ""]:
            raise Refused(3, "page token does not match the supplied sort by and/or filtering criteria")
    size = int(query.get("page_size", 0))
    if size < 0:
        raise Refused(3, f"The page size should be greater than 0. Got {size}")
    end = start + min(size or 20, 200)
    answer: Tree = {name: found[start:end], "total_size": len(found)} if found else {}
    if end < len(found):
        answer["next_page_token"] = base64.b64encode(json.dumps([end, *criteria]).encode()).decode()
    return answer


def _passes(tree: Tree, text: str, keys: tuple[str, ...]) -> bool:
    if not text:
        return True
    try:
        predicates = json.loads(unquote(text)).get("predicates", [])
    except (ValueError, AttributeError):
        raise Refused(3, f"failed to parse valid filter from {text!r}") from None
    return all(_meets(tree, {_snake(key): value for key, value in each.items()}, keys) for each in predicates)


def _meets(tree: Tree, predicate: Tree, keys: tuple[str, ...]) -> bool:
    _refuse_unknown("V2beta1Predicate", {**predicate, "operation": "EQUALS"})
    key, operation = predicate.get("key", ""), predicate.get("operation", 0)
    if key not in keys:
        raise Refused(3, f"no such field {key!r} to filter by; there are {keys}")
    name = OPERATIONS[operation] if isinstance(operation, int) else operation
    of_old: dict[str, str] = {
        "id": keys[0],
        "status": "state",
        "name": "name" if "name" in tree else "display_name",
    }  # names of the first API
    value = tree.get(of_old.get(str(key), str(key)))
    wanted = predicate.get("string_value")
    if name == "EQUALS":
        return value == wanted
    if name == "NOT_EQUALS":
        return value != wanted
    if name == "IS_SUBSTRING":
        return str(wanted) in str(value)
    if name == "IN":
        return value in predicate.get("string_values", {}).get("values", [])
    raise Refused(12, f"the stand-in does not filter by {name}")


def _snake(name: str) -> str:
    """`stringValue`, which protojson takes too, as `string_value`."""
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found[1].lower()}", name)
