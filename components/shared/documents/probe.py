"""What `hagane plan --probe` measured: three optimizer steps of the plan's own model."""

from collections.abc import Callable
from typing import Literal

from components.shared.documents.fields import FrozenModel
from components.shared.events import Event
from components.shared.figures import plain, plural, time_of


class MeasuredSteps(FrozenModel):
    """What the training processes report, before anything is derived from it."""

    device: str
    """Name of the GPU, or of the processor where there is none."""
    num_processes: int
    rows: Literal["dataset", "random"]
    """Rows of the dataset, or random token ids of the planned row length."""
    tokens_per_row: float
    """Mean of the rows that were used."""
    grad_accum: int
    """Micro-steps of each measured step: those of the plan, or fewer where they take long."""
    step_seconds: tuple[float, ...]
    """Of each optimizer step after the warm-up, from the end of the one before."""
    optimizer_seconds: float
    """Median of what the optimizer took in those steps, in process 0."""
    peak_host_bytes: int | None
    """Of the node: the peaks of its processes added up; None where the kernel does not tell."""
    peak_gpu_bytes: int | None
    """Of the GPU that took most; None on a CPU."""

    @classmethod
    def of(cls, event: Event) -> "MeasuredSteps":
        """What the event `probed` reports."""
        fields = {name: event[name] for name in cls.model_fields}
        return cls.model_validate(fields, strict=False)


class Compared(FrozenModel):
    """One figure, as the plan had it and as it was measured; None where it is not known."""

    planned: float | None
    measured: float | None

    @property
    def difference(self) -> float | None:
        """Share of the planned figure by which the measured one is larger."""
        if not self.planned or self.measured is None:
            return None
        return self.measured / self.planned - 1


class ProbePlan(FrozenModel):
    """Measured figures beside the estimate. The plan's `time` follows from the measured ones."""

    steps: MeasuredSteps
    seconds_per_step: Compared
    """Of a step with all micro-steps of the plan."""
    planned_range: tuple[float, float] | None
    """Of `seconds_per_step.planned`."""
    tokens_per_second: Compared
    """Of all processes."""
    host_bytes: Compared
    """Peak of a node."""
    gpu_bytes: Compared
    """Peak of a GPU; neither is known on a CPU."""

    @property
    def table(self) -> list[tuple[str, str, str, str]]:
        """What it is, planned, measured, difference: as people read them. Figures that nobody
        planned or measured are left out."""
        rows = (
            ("optimizer step", self.seconds_per_step, time_of),
            ("tokens per second", self.tokens_per_second, plain),
            ("GPU memory, peak", self.gpu_bytes, _gib),
            ("host memory, peak per node", self.host_bytes, _gib),
        )
        return [
            (name, *_shown(figure, words))
            for name, figure, words in rows
            if figure.planned is not None or figure.measured is not None
        ]

    @property
    def how(self) -> str:
        """What was run, in one sentence."""
        steps = self.steps
        if steps.rows == "dataset":
            rows = "of the dataset"
        else:
            rows = "of random tokens"
        seconds = ", ".join(plain(each) for each in steps.step_seconds)
        return (
            f"{len(steps.step_seconds)} steps of {plural(steps.grad_accum, 'micro-step')} each on "
            f"{steps.num_processes} x {steps.device}, rows {rows}: {seconds} s; one step before "
            "them to warm up"
        )


def _shown(figure: Compared, words: Callable[[float], str]) -> tuple[str, str, str]:
    if figure.planned is None:
        planned = "not known"
    else:
        planned = words(figure.planned)
    if figure.measured is None:
        measured = "not known"
    else:
        measured = words(figure.measured)
    difference = figure.difference
    return planned, measured, "" if difference is None else f"{difference:+.0%}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
