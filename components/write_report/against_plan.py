"""What the plan said of time, memory, checkpoints -> beside what happened."""

from collections.abc import Iterator
from typing import Any

from components.shared.documents.plan import Plan
from components.write_report import words
from components.write_report.gather import RunFound


def against_plan(found: RunFound) -> list[dict[str, Any]]:
    """One entry a figure: `what`, `planned` with its range where it has one, `happened`, and
    `unit`. Only what both know."""
    return [
        {"what": what, **figures}
        for what, figures in _figures(found)
        if figures["happened"] is not None
    ]


def _figures(found: RunFound) -> Iterator[tuple[str, dict[str, Any]]]:
    plan, history = found.plan, found.history
    yield "optimizer steps", _figure(plan.steps.total_steps, len(history.steps), "steps")
    if plan.time is not None:
        time = plan.time
        yield (
            "a step",
            _figure(
                time.seconds_per_step, history.seconds_per_step, "seconds", (time.low, time.high)
            ),
        )
        hours = tuple(3600 * each for each in (time.hours, time.hours_low, time.hours_high))
        yield (
            "all steps, with held-out loss and saves",
            _figure(hours[0], history.seconds, "seconds", hours[1:]),
        )
    yield "memory of a node", _figure(plan.memory.host_bytes, history.peak_node_bytes, "bytes")
    if plan.memory.gpu:
        yield "memory of a GPU", _figure(_of_torch(plan), history.peak_gpu_bytes, "bytes")
    stored = max((checkpoint.num_bytes for checkpoint in found.checkpoints), default=None)
    yield "a checkpoint", _figure(plan.checkpoints.bytes_each, stored, "bytes")


def _of_torch(plan: Plan) -> int:
    """What the plan counts of a GPU but for CUDA's and NCCL's own, which torch does not see."""
    return sum(term.num_bytes for term in plan.memory.gpu if term.name != "CUDA context and NCCL")


def _figure(
    planned: float, happened: float | None, unit: str, limits: tuple[float, ...] = ()
) -> dict[str, Any]:
    return {"planned": planned, "range": list(limits), "happened": happened, "unit": unit}


def reported(figure: dict[str, Any]) -> dict[str, str]:
    """The same in words: `what`, `planned`, `happened`, and by how much it was more or less."""
    write = {"seconds": words.exact_duration, "bytes": words.size, "steps": words.count}[
        figure["unit"]
    ]
    limits = " to ".join(write(each) for each in figure["range"])
    more = figure["happened"] / figure["planned"] - 1
    return {
        "what": figure["what"],
        "planned": write(figure["planned"]) + (f" ({limits})" if limits else ""),
        "happened": write(figure["happened"]),
        "difference": "as planned" if round(100 * more) == 0 else f"{more:+.0%}",
    }
