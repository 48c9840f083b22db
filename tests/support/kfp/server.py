"""The stand-in's state, and what a test may do to it while it serves."""

import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from tests.support.kfp import nodes
from tests.support.kfp.answers import Refused, Tree

FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
NOT_FINISHED = "1970-01-01T00:00:00Z"
"""A run's end while it has none: Unix' zero time."""
ACCOUNT = "pipeline-runner"
"""KFP's own account, under which a run is that names none."""


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


@dataclass
class KfpServer:
    """The server's state. Every public method may be called while it serves."""

    multi_user: bool = False
    token: str | None = None
    """The bearer token that every request must bring; None asks for none."""
    forbidden: set[str] = field(default_factory=set)
    """Namespaces that nobody may use."""
    through_ui: bool = False
    """Whether the address is the UI's, which answers healthz itself, in its own spelling."""
    tag_name: str = "unknown"
    """What healthz says the server's version is; one built from a checkout says `unknown`."""
    endpoint: str = ""
    experiments: dict[str, Tree] = field(default_factory=dict)
    pipelines: dict[str, Tree] = field(default_factory=dict)
    versions: dict[str, Tree] = field(default_factory=dict)
    runs: dict[str, Tree] = field(default_factory=dict)
    recurring_runs: dict[str, Tree] = field(default_factory=dict)
    steps: dict[str, dict[str, nodes.Step]] = field(default_factory=dict)
    """Run -> how far each of its steps is."""
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    """(run, node) -> what its pod printed."""
    missed: dict[str, int] = field(default_factory=dict)
    """Recurring run -> moments of its cron that passed while it was turned off."""
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    course: list[Tree] = field(default_factory=list)
    """Keyword arguments of `advance`, one entry used up each time a run is looked at."""
    on_terminate: Callable[[str], None] | None = None
    """What happens in the cluster when a run is terminated, by its id."""
    on_look: Callable[[str], None] | None = None
    """What happens in the cluster each time that a run is looked at, by its id."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        if not self.multi_user:
            self.add_experiment(
                {
                    "display_name": "Default",
                    "description": "All runs created without specifying an experiment.",
                }
            )

    def fail(self, match: str, status: int, *, times: int = 1_000_000) -> None:
        """Requests that match are answered with this status and the real server's kind of body."""
        self.faults.append(Fault(match, "status", status=status, times=times))

    def slow(self, match: str, seconds: float, *, times: int = 1_000_000) -> None:
        self.faults.append(Fault(match, "slow", seconds=seconds, times=times))

    def drop(self, match: str, *, after: bool = False, times: int = 1) -> None:
        """The connection is closed without an answer: before the request is obeyed, or `after` it
        was."""
        self.faults.append(Fault(match, "drop after" if after else "drop", times=times))

    def login_page(self, match: str = ".") -> None:
        """Requests that match get a proxy's page to log in, with status 200."""
        self.faults.append(Fault(match, "login page"))

    def no_such_page(self, match: str = ".") -> None:
        """Requests that match get the 404 of a web server that is not KFP."""
        self.faults.append(Fault(match, "no such page"))

    def called(self, match: str) -> list[Asked]:
        """The requests so far whose `METHOD /path` match."""
        with self.lock:
            return [each for each in self.asked if re.search(match, str(each))]

    def advance(
        self, run_id: str, state: str, *, steps: dict[str, nodes.StepState] | None = None
    ) -> None:
        """The run is in this state, and those of its steps (`prepare_dataset`) in these.

        A run that ends has run its exit task, unless `steps` says otherwise, and has left out what
        came after a step that failed.
        """
        with self.lock:
            run, moment = self.runs[run_id], now()
            if run.get("state") != state:
                run["state"] = state
                run["state_history"].append({"update_time": moment, "state": state})
            is_over = state in FINISHED
            run["finished_at"] = moment if is_over else NOT_FINISHED
            known = self.steps[run_id]
            for name, step_state in (steps or {}).items():
                self._set_step(known, name.replace("_", "-"), step_state, moment)
            if is_over:
                self._end_steps(known, state, moment)
            self._write_tasks(run, known)

    def print_log(
        self, run_id: str, step: str, text: str, *, in_pods_own_node: bool = True
    ) -> None:
        """The step's pod has printed this. `in_pods_own_node`: Argo tries executors again, as by
        KFP's own config map."""
        node = nodes.log_node if in_pods_own_node else nodes.step_node
        self.logs[
            run_id, node(run_id, self.pipeline_of(self.runs[run_id]), step.replace("_", "-"))
        ] = text

    def trigger(self, recurring_run_id: str) -> str:
        """A run as the schedule would start it. Returns its id."""
        from tests.support.kfp.runs import add_run

        with self.lock:
            job = self.recurring_runs[recurring_run_id]
            kept = (
                "experiment_id",
                "pipeline_spec",
                "pipeline_version_reference",
                "runtime_config",
            )
            letters = uuid.uuid4().hex
            name = f"{job['display_name']}{letters[:5]}-{len(self.runs)}-{int(letters[5:12], 16)}"
            made = add_run(
                self, {"display_name": name, **{key: job[key] for key in kept if key in job}}
            )
            made["state_history"] = made["state_history"][1:]
            made |= {"recurring_run_id": recurring_run_id, "scheduled_at": now()}
            return made["run_id"]

    def tick(self, recurring_run_id: str) -> None:
        """A moment comes that the schedule's cron names: it starts a run, or misses one when it is
        turned off."""
        with self.lock:
            if self.recurring_runs[recurring_run_id]["mode"] == "ENABLE":
                self.trigger(recurring_run_id)
            else:
                self.missed[recurring_run_id] = self.missed.get(recurring_run_id, 0) + 1

    # What several calls of the API need

    def add_experiment(self, body: Tree) -> Tree:
        made = {
            "experiment_id": str(uuid.uuid4()),
            "created_at": now(),
            "storage_state": "AVAILABLE",
            "namespace": "",
            **body,
        }
        self.experiments[made["experiment_id"]] = made
        return made

    def check_namespace(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise Refused(3, "A namespace is required in multi-user mode")
        if namespace and not self.multi_user:
            raise Refused(3, "In single-user mode, a namespace cannot be given")
        if namespace in self.forbidden:
            raise Refused(
                7,
                f"User 'somebody' is not authorized with reason: may not use namespace {namespace}",
            )

    def pipeline_namespace(self, given: Tree) -> str:
        """Pipelines may be shared by all namespaces, which an empty one says."""
        namespace = given.get("namespace", "")
        if namespace or not self.multi_user:
            self.check_namespace(namespace)
        return namespace

    def experiment_namespace(self, body: Tree) -> str:
        namespace = self.experiments[self.with_experiment(body)["experiment_id"]]["namespace"]
        self.check_namespace(namespace)
        return namespace

    def with_experiment(self, body: Tree) -> Tree:
        """The body with its experiment, the default one where it names none."""
        default = next(
            (key for key, each in self.experiments.items() if each["display_name"] == "Default"),
            None,
        )
        experiment_id = body.get("experiment_id") or default
        if experiment_id is None:
            raise Refused(3, "Experiment id is required in multi-user mode")
        found(self.experiments, "Experiment", experiment_id)
        return {**body, "experiment_id": experiment_id}

    def in_scope(self, objects: Any, query: dict[str, str]) -> list[Tree]:
        experiment_id = query.get("experiment_id")
        if experiment_id:
            return [each for each in objects if each["experiment_id"] == experiment_id]
        namespace = query.get("namespace", "")
        self.check_namespace(namespace)
        return [
            each
            for each in objects
            if self.experiments[each["experiment_id"]]["namespace"] == namespace
        ]

    def pipeline_of(self, run: Tree) -> str:
        """Name of the pipeline that a run is of."""
        kept = self.pipelines.get(run.get("pipeline_version_reference", {}).get("pipeline_id", ""))
        return "pipeline" if kept is None else kept["name"]

    def _set_step(
        self, known: dict[str, nodes.Step], key: str, state: nodes.StepState, moment: str
    ) -> None:
        before = known.get(key)
        started = (
            before.started
            if before is not None and before.state not in ("DRIVER", "OMITTED")
            else moment
        )
        is_over = state in ("SUCCEEDED", "FAILED", "CACHED")
        known[key] = nodes.Step(state, started, moment if is_over else nodes.NEVER)

    def _end_steps(self, known: dict[str, nodes.Step], state: str, moment: str) -> None:
        """Every step has ended, or was left out."""
        left_out: nodes.StepState = "SUCCEEDED" if state == "SUCCEEDED" else "OMITTED"
        for key in nodes.STEPS[:-1]:
            if key not in known or known[key].state == "DRIVER":
                self._set_step(known, key, left_out, moment)
            elif known[key].state in ("RUNNING", "PENDING"):
                self._set_step(
                    known, key, "SUCCEEDED" if state == "SUCCEEDED" else "FAILED", moment
                )
        if nodes.EXIT not in known:
            self._set_step(known, nodes.EXIT, "SUCCEEDED", moment)

    def _write_tasks(self, run: Tree, known: dict[str, nodes.Step]) -> None:
        ended = nodes.NEVER if run["finished_at"] == NOT_FINISHED else run["finished_at"]
        ordered = {key: known[key] for key in nodes.STEPS if key in known}
        details = nodes.task_details(
            run["run_id"], self.pipeline_of(run), run["created_at"], run["state"], ended, ordered
        )
        run["run_details"] = {"task_details": details}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def found(
    objects: dict[str, Tree], kind: str, key: str, *, doing: str = "Failed to get it: "
) -> Tree:
    if key not in objects:
        raise Refused(5, f"{kind} {key} not found", doing=f"{doing}ResourceNotFoundError: ")
    return objects[key]
