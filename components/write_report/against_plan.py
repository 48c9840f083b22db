"""What the plan said of time, memory, checkpoints -> beside what happened."""

from collections.abc import Iterator

from components.shared.documents.plan import Plan
from components.shared.documents.report import PlannedFigure
from components.write_report import words
from components.write_report.gather import RunFound

WORDS = {"seconds": words.exact_duration, "bytes": words.size, "steps": words.count}


def against_plan(found: RunFound) -> Iterator[PlannedFigure]:
    """Only what both know."""
    plan, history = found.plan, found.history
    num_steps, memory = len(history.steps), plan.memory
    yield PlannedFigure(
        what="optimizer steps",
        planned=plan.steps.total_steps,
        range=(),
        happened=num_steps,
        unit="steps",
    )
    yield from _times(found)
    peaks = [("memory of a node", memory.host_bytes, history.peak_node_bytes)]
    if memory.gpu:
        peaks.append(("memory of a GPU", _of_torch(plan), history.peak_gpu_bytes))
    stored = max((checkpoint.num_bytes for checkpoint in found.checkpoints), default=None)
    for what, planned, happened in (*peaks, ("a checkpoint", plan.checkpoints.bytes_each, stored)):
        if happened is not None:
            yield PlannedFigure(
                what=what, planned=planned, range=(), happened=happened, unit="bytes"
            )


def _times(found: RunFound) -> Iterator[PlannedFigure]:
    time, history = found.plan.time, found.history
    if time is None:
        return
    if history.seconds_per_step is not None:
        yield PlannedFigure(
            what="a step",
            planned=time.seconds_per_step,
            range=(time.low, time.high),
            happened=history.seconds_per_step,
            unit="seconds",
        )
    yield PlannedFigure(
        what="all steps, with held-out loss and saves",
        planned=3600 * time.hours,
        range=(3600 * time.hours_low, 3600 * time.hours_high),
        happened=history.seconds,
        unit="seconds",
    )


def _of_torch(plan: Plan) -> int:
    """What the plan counts of a GPU but for CUDA's and NCCL's own, which torch does not see."""
    return sum(term.num_bytes for term in plan.memory.gpu if term.name != "CUDA context and NCCL")


def reported(figure: PlannedFigure) -> dict[str, str]:
    """The same in words: `what`, `planned`, `happened`, and by how much it was more or less."""
    write, planned = WORDS[figure.unit], figure.planned
    expected = write(planned)
    if figure.range:
        expected += f" ({' to '.join(write(each) for each in figure.range)})"
    more = figure.happened / planned - 1
    if round(100 * more) == 0:
        difference = "as planned"
    else:
        difference = f"{more:+.0%}"
    return {
        "what": figure.what,
        "planned": expected,
        "happened": write(figure.happened),
        "difference": difference,
    }
