"""Where a run and its steps stand, by what a real server answered (tests/data/kfp_answers)."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import kfp_server_api as api
import pytest

from components.shared.documents.failures import STEPS
from pipelines.kfp_api.run_view import RunView, view_of
from tests.support.kfp_answers import recorded

NAMES = {step.replace("_", "-"): step for step in STEPS}


def run_of(tree: Any) -> Any:
    """The published client's object."""
    return api.ApiClient().deserialize(SimpleNamespace(data=json.dumps(tree)), "V2beta1Run")


def view(name: str) -> RunView:
    return view_of(run_of(recorded(name)), NAMES)


def states(seen: RunView) -> dict[str, str]:
    return {step.name: step.state for step in seen.steps}


DONE = dict.fromkeys(STEPS, "succeeded")
NEVER_RUN = dict.fromkeys(("export_adapter", "evaluate", "write_report"), "not run")
SO_FAR = dict.fromkeys(("claim_run", "prepare_dataset", "render_config"), "succeeded")


@pytest.mark.parametrize(
    ("name", "state", "expected"),
    [
        ("run-succeeded", "succeeded", DONE),
        ("run-cached", "succeeded", DONE | {"prepare_dataset": "done before", "render_config": "done before"}),
        ("run-failed", "failed", SO_FAR | {"launch_training": "failed", "end_run": "succeeded"} | NEVER_RUN),
        ("run-cancelled", "cancelled", SO_FAR | {"launch_training": "cancelled", "end_run": "succeeded"} | NEVER_RUN),
        ("run-retried", "succeeded", DONE),
        ("run-failed-at-once", "failed", dict.fromkeys(STEPS, "not run")),
        ("run-training", "running", dict.fromkeys(STEPS, "waiting") | SO_FAR | {"launch_training": "running"}),
        ("run-running", "running", dict.fromkeys(STEPS, "waiting") | {"claim_run": "succeeded", "prepare_dataset": "running"}),
    ],
)
def test_every_state_of_a_run_and_its_steps_is_told_apart(name: str, state: str, expected: dict[str, str]) -> None:
    seen = view(name)
    assert (seen.state, states(seen)) == (state, expected)


def test_steps_are_in_the_pipelines_order_however_the_server_lists_them() -> None:
    tree = recorded("run-succeeded")
    for seed in range(5):
        random.Random(seed).shuffle(tree["run_details"]["task_details"])
        assert [step.name for step in view_of(run_of(tree), NAMES).steps] == list(STEPS)


def test_a_zero_time_is_no_time() -> None:
    running = view("run-training")
    assert (running.finished, running.step("launch_training").finished, running.step("evaluate").started) == (None, None, None)
    assert running.step("launch_training").started == datetime(2026, 11, 29, 21, 48, 8, tzinfo=UTC)
    failed = view("run-failed")
    assert (failed.step("evaluate").started, failed.step("evaluate").seconds) == (None, None)
    assert failed.step("launch_training").seconds == 65


def test_a_run_is_at_the_step_whose_driver_runs_too() -> None:
    assert view("run-training").at_step == ("launch_training",)
    tree = recorded("run-training")
    tasks = tree["run_details"]["task_details"]
    tree["run_details"]["task_details"] = [task for task in tasks if not task.get("display_name", "").startswith("launch-training")]
    driver = next(task for task in tasks if task.get("display_name") == "launch-training-driver")
    tree["run_details"]["task_details"].append({**driver, "state": "RUNNING", "end_time": "0001-01-01T00:00:00Z"})
    at_driver = view_of(run_of(tree), NAMES)
    assert (at_driver.at_step, at_driver.step("launch_training").state) == (("launch_training",), "starting")


def test_a_failed_run_is_cancelled_only_when_that_is_how_its_last_try_ended() -> None:
    tree = recorded("run-cancelled")
    moment = tree["state_history"][-1]["update_time"]
    later = [{"update_time": moment, "state": state} for state in ("RUNNING", "FAILED")]
    retried = view_of(run_of({**tree, "state_history": [*tree["state_history"], *later]}), NAMES)
    assert (retried.state, retried.cancelled_at) == ("failed", None)
    assert retried.retried_at is not None
    assert view("run-cancelled").cancelled_at == datetime(2026, 11, 29, 21, 54, 59, tzinfo=UTC)
    assert view("run-retried").retried_at == datetime(2026, 11, 29, 22, 8, 7, tzinfo=UTC)


def test_a_run_that_was_just_created_waits() -> None:
    tree = recorded("run-created")
    fresh = {**tree, "state_history": [*tree["state_history"], {"update_time": tree["created_at"]}]}
    del fresh["state"]
    seen = view_of(run_of(fresh), NAMES)
    assert (seen.state, seen.is_over, seen.at_step, set(states(seen).values())) == ("waiting", False, (), {"waiting"})


def test_what_kfp_runs_around_the_steps_has_failed_where_no_step_has() -> None:
    (driver,) = view("run-failed-at-once").failed_steps
    assert (driver.name, driver.log_nodes) == ("root-driver", ("hagane-finetune-fn8rk-3572078329",))


def test_the_log_of_a_step_is_looked_for_at_its_executors_pod_first() -> None:
    seen = view("run-failed")
    assert seen.step("launch_training").log_nodes == ("hagane-finetune-h49tg-245634138", "hagane-finetune-h49tg-3444848452")
    assert seen.step("claim_run").log_nodes[0] == "hagane-finetune-h49tg-3365665658"
    assert seen.step("evaluate").log_nodes == ()


def every_time(seen: RunView) -> Iterator[datetime | None]:
    yield from (seen.created, seen.finished, seen.cancelled_at, seen.retried_at)
    for step in seen.steps:
        yield from (step.started, step.finished)


@pytest.mark.parametrize("name", ["run-running", "run-training", "run-failed", "run-failed-at-once", "run-cancelled", "run-created"])
def test_no_time_of_any_recorded_run_is_before_the_year_2000(name: str) -> None:
    assert all(moment is None or moment.year == 2026 for moment in every_time(view(name)))
