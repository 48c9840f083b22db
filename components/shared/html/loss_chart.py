"""History of losses -> an SVG drawing with axes; its colours are the page's, by CSS class.

Long trainings are drawn by at most MOST_POINTS points, each the mean of as many steps: 10,000 steps
stay under 6 kB.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from components.shared.documents.results import History

MOST_POINTS = 300
LEFT, RIGHT, TOP, BOTTOM = 40, 16, 30, 36
"""Room around the plot for labels, in the drawing's units."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Steps and losses -> places in the drawing."""

    width: int
    height: int
    last_step: int
    low: float
    high: float

    def x(self, step: float) -> float:
        return round(LEFT + (self.width - LEFT - RIGHT) * step / self.last_step, 1)

    def y(self, loss: float) -> float:
        return round(
            TOP + (self.height - TOP - BOTTOM) * (self.high - loss) / (self.high - self.low), 1
        )


def loss_chart(history: History, *, width: int, height: int) -> str:
    """Training loss by step; held-out loss, if any, before the first step and at the end of each
    epoch. A loss that is no number has no place in the drawing."""
    training = thinned(
        [(step.step, step.loss) for step in history.steps if math.isfinite(step.loss)]
    )
    held_out = _held_out_points(history)
    losses = ticks(
        min(y for _, y in (*training, *held_out)),
        max(y for _, y in (*training, *held_out)),
        most=height // 50,
    )
    scale = Scale(width, height, last_step=history.epochs[-1].step, low=losses[0], high=losses[-1])
    parts = [
        *grid(scale, losses),
        *epoch_marks(scale, [epoch.step for epoch in history.epochs]),
        line("training", scale, training),
        line("held-out", scale, held_out),
        *(
            f'<circle class="held-out" cx="{scale.x(step)}" cy="{scale.y(loss)}" r="4.5"/>'
            for step, loss in held_out
        ),
        *_labels(scale, held_out),
    ]
    title = "Training loss by step"
    if held_out:
        title += f", and held-out loss from {held_out[0][1]:.3f} to {held_out[-1][1]:.3f}"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _held_out_points(history: History) -> list[Point]:
    losses = [
        (0, history.start_held_out_loss),
        *((epoch.step, epoch.held_out_loss) for epoch in history.epochs),
    ]
    return [
        (float(step), loss) for step, loss in losses if loss is not None and math.isfinite(loss)
    ]


def thinned(points: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points, each the mean of equally many neighbours; the last may be of fewer."""
    size = -(-len(points) // most)
    if points:
        chunks = (points[start : start + size] for start in range(0, len(points), size))
    else:
        chunks = ()
    return [
        (sum(x for x, _ in chunk) / len(chunk), sum(y for _, y in chunk) / len(chunk))
        for chunk in chunks
    ]


def ticks(low: float, high: float, *, most: int) -> list[float]:
    """Round numbers at even distances, at most `most` + 2, the first not above `low` and the last
    not below `high`."""
    span = (high - low) or max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= span / most)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(index * step, 10) for index in range(first, last + 1)]


def grid(scale: Scale, losses: list[float]) -> Iterable[str]:
    right, bottom = scale.width - RIGHT, scale.height - BOTTOM
    for loss in losses:
        yield (
            f'<line class="grid" x1="{LEFT}" y1="{scale.y(loss)}" x2="{right}" '
            f'y2="{scale.y(loss)}"/>'
        )
        yield (
            f'<text class="tick" x="{LEFT - 8}" y="{scale.y(loss) + 4}" '
            f'text-anchor="end">{loss:g}</text>'
        )
    marks = [
        step for step in ticks(0, scale.last_step, most=scale.width // 100) if step == int(step)
    ]
    for step in (*(step for step in marks if scale.x(step) < right - 40), scale.last_step):
        yield (
            f'<text class="tick" x="{scale.x(step)}" y="{bottom + 16}" '
            f'text-anchor="middle">{step:,.0f}</text>'
        )
    yield (
        f'<text class="tick" x="{(LEFT + right) / 2}" y="{scale.height - 4}" '
        'text-anchor="middle">optimizer step</text>'
    )


def epoch_marks(scale: Scale, last_steps: list[int]) -> Iterable[str]:
    """A broken line at the end of each epoch; names only as many as there is room for."""
    every = -(-len(last_steps) * 62 // (scale.width - LEFT - RIGHT))
    for epoch, step in enumerate(last_steps, start=1):
        x = scale.x(step)
        yield f'<line class="epoch" x1="{x}" y1="{TOP - 8}" x2="{x}" y2="{scale.height - BOTTOM}"/>'
        if epoch % every == 0 or epoch == len(last_steps):
            place = f'x="{x}" y="{TOP - 13}" text-anchor="end"'
            yield f'<text class="tick" {place}>epoch {epoch}</text>'


def line(name: str, scale: Scale, points: list[Point]) -> str:
    places = " ".join(f"{scale.x(step)},{scale.y(loss)}" for step, loss in points)
    return f'<polyline class="{name}" points="{places}"/>'


def _labels(scale: Scale, held_out: list[Point]) -> Iterable[str]:
    """The first and the last held-out loss in numbers, inside the plot."""
    if not held_out:
        return
    for (step, loss), anchor, aside in ((held_out[0], "start", 10), (held_out[-1], "end", -4)):
        yield (
            f'<text class="value" x="{scale.x(step) + aside}" y="{scale.y(loss) - 12}" '
            f'text-anchor="{anchor}">{loss:.3f}</text>'
        )
