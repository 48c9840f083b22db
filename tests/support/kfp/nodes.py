"""A run's tasks as KFP 2.17 lists them: Argo's nodes, about six for each step of the pipeline, in
no order.

Seen in tests/data/kfp_answers: every node has the workflow's create_time; one that runs ends at
Argo's zero time; one that was left out has no state, and begins and ends when it was left out; a
step of a cache has an executor that is SKIPPED; what ML Metadata knows of a step that may be cached
stands there too, without a name.
"""

import hashlib
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from tests.support.kfp.answers import Tree

NEVER = "0001-01-01T00:00:00Z"
"""Argo's zero time: the end of what runs."""
STEPS = (
    "claim-run",
    "prepare-dataset",
    "render-config",
    "launch-training",
    "export-adapter",
    "evaluate",
    "write-report",
    "end-run",
)
"""Keys of the pipeline's tasks, in their order; the last is the exit task."""
EXIT = STEPS[-1]
MAY_BE_CACHED = ("prepare-dataset", "render-config")
StepState = Literal["DRIVER", "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CACHED", "OMITTED"]
"""DRIVER: KFP's own pod for the step runs, the step's does not yet. CACHED and OMITTED: nothing was
run."""


@dataclass(frozen=True)
class Step:
    """How far a step is."""

    state: StepState
    started: str
    ended: str = NEVER


def task_details(
    run_id: str, pipeline: str, created: str, run_state: str, ended: str, steps: Mapping[str, Step]
) -> list[Tree]:
    """The nodes of a run whose steps stand like this. `ended`: when the run did; NEVER while it
    runs."""
    workflow = f"{pipeline}-{run_id[:5]}"
    nodes: list[Tree] = []

    def add(
        name: str,
        unique: str,
        state: str | None,
        started: str,
        end: str,
        children: list[str],
        history: list[str],
    ) -> None:
        nodes.append(
            _node(
                run_id,
                name,
                unique,
                state,
                created,
                started,
                end,
                [_id(workflow, each) for each in children],
                history,
            )
        )

    phase = "RUNNING" if ended == NEVER else run_state
    for name, child in _enclosing(workflow):
        add(name, name, phase, created, ended, [child], ["RUNNING", phase])
    for name in ("root-driver", "exit-handler-1-driver"):
        add(name, name, "SUCCEEDED", created, created, [f"{name}(0)"], ["RUNNING", "SUCCEEDED"])
        add(
            f"{name}(0)",
            f"{name}(0)",
            "SUCCEEDED",
            created,
            created,
            ["root"],
            ["PENDING", "SUCCEEDED"],
        )
    for key, step in steps.items():
        for each in _nodes_of(key, step):
            add(*each)
        if key in MAY_BE_CACHED and step.state in ("RUNNING", "SUCCEEDED"):
            nodes.append(_execution(run_id, key, step))
    return sorted(nodes, key=lambda node: hashlib.sha256(node["task_id"].encode()).digest())


def log_node(run_id: str, pipeline: str, key: str) -> str:
    """The node whose log is a step's: its pod's, when Argo tries executors again, as KFP's config
    map has it."""
    return _id(f"{pipeline}-{run_id[:5]}", f"{key}.executor(0)")


def step_node(run_id: str, pipeline: str, key: str) -> str:
    """The node whose log is a step's where Argo tries none again: the child of the task that is
    named as the step."""
    return _id(f"{pipeline}-{run_id[:5]}", f"{key}(0)")


def _enclosing(workflow: str) -> Iterator[tuple[str, str]]:
    yield workflow, f"{workflow}(0)"
    yield f"{workflow}(0)", "root-driver"
    yield "root", "root(0)"
    yield "root(0)", "exit-handler-1-driver"
    yield "exit-handler-1", "exit-handler-1(0)"
    yield "exit-handler-1(0)", "claim-run-driver"


def _nodes_of(
    key: str, step: Step
) -> Iterator[tuple[str, str, str | None, str, str, list[str], list[str]]]:
    driver, executor = f"{key}-driver", f"{key}.executor"
    if step.state == "OMITTED":
        yield key, key, None, step.started, step.started, [], [""]
        yield driver, driver, None, step.started, step.started, [key], [""]
        return
    at_driver = step.state == "DRIVER"
    driver_state, driver_end = ("RUNNING", NEVER) if at_driver else ("SUCCEEDED", step.started)
    yield driver, driver, driver_state, step.started, driver_end, [f"{driver}(0)"], ["RUNNING"]
    yield f"{driver}(0)", f"{driver}(0)", driver_state, step.started, driver_end, [key], ["PENDING"]
    if at_driver:
        return
    if step.state == "CACHED":
        yield key, key, "SUCCEEDED", step.started, step.started, [f"{key}(0)"], ["SUCCEEDED"]
        yield (
            f"{key}(0)",
            f"{key}(0)",
            "SUCCEEDED",
            step.started,
            step.started,
            [executor],
            ["SUCCEEDED"],
        )
        yield "executor", executor, "SKIPPED", step.started, step.started, [], ["SKIPPED"]
        return
    state = "RUNNING" if step.state == "PENDING" else step.state
    history = ["RUNNING"] if state == "RUNNING" else ["RUNNING", state]
    yield key, key, state, step.started, step.ended, [f"{key}(0)"], history
    yield f"{key}(0)", f"{key}(0)", state, step.started, step.ended, [executor], history
    yield "executor", executor, state, step.started, step.ended, [f"{executor}(0)"], history
    yield (
        "executor(0)",
        f"{executor}(0)",
        step.state,
        step.started,
        step.ended,
        [],
        ["PENDING", *history],
    )
    if key == EXIT:
        yield (
            "exit-handler-1.onExit",
            "onExit",
            state,
            step.started,
            step.ended,
            ["onExit(0)"],
            history,
        )
        yield (
            "exit-handler-1.onExit(0)",
            "onExit(0)",
            state,
            step.started,
            step.ended,
            [driver],
            history,
        )


def _node(
    run_id: str,
    name: str,
    unique: str,
    state: str | None,
    created: str,
    started: str,
    ended: str,
    children: list[str],
    history: list[str],
) -> Tree:
    node: Tree = {
        "run_id": run_id,
        "task_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run_id}/{unique}")),
        "display_name": name,
    }
    node |= {"create_time": created, "start_time": started, "end_time": ended}
    if state is not None:
        node["state"] = state
    node["state_history"] = [
        {"update_time": started, **({"state": each} if each else {})} for each in history
    ]
    if children:
        node["child_tasks"] = [{"pod_name": each} for each in children]
    return node


def _execution(run_id: str, key: str, step: Step) -> Tree:
    task_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run_id}/{key}/execution"))
    ended = step.started if step.ended == NEVER else step.ended
    times = {"create_time": step.started, "start_time": step.started, "end_time": ended}
    return {
        "run_id": run_id,
        "task_id": task_id,
        **times,
        "execution_id": str(20 + STEPS.index(key)),
    }


def _id(workflow: str, unique: str) -> str:
    return f"{workflow}-{zlib.crc32(f'{workflow}/{unique}'.encode())}"
