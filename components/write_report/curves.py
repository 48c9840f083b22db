"""Values by optimizer step -> a small SVG drawing with epoch marks, for the learning rate, the norm of the gradient, tokens per second."""

import math
from dataclasses import dataclass

from components.shared.documents.results import History
from components.shared.html.loss_chart import Point, Scale, epoch_marks, grid, line, thinned, ticks


@dataclass(frozen=True)
class Curve:
    name: str
    unit: str
    """What a mark of 1 on the axis stands for, such as `10⁻³`; empty for 1."""
    wide: str
    narrow: str


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
WIDE, NARROW = (760, 180), (380, 170)


def curves(history: History, *, tokens_per_step: float = 0.0) -> list[Curve]:
    """One for each value that the training recorded. `tokens_per_step`: of all processes, a mean."""
    timed = zip(history.steps, history.step_seconds, strict=False)
    values = {
        "tokens per second": [(float(each.step), tokens_per_step / took) for each, took in timed if took and tokens_per_step],
        "learning rate": [(float(each.step), each.lr) for each in history.steps],
        "gradient norm before clipping": [(float(each.step), each.grad_norm) for each in history.steps if each.grad_norm is not None],
    }
    return [_curve(name, points, history) for name, points in values.items() if points]


def _curve(name: str, points: list[Point], history: History) -> Curve:
    exponent = exponent_of(max(abs(value) for _, value in points))
    scaled = [(step, value / 10.0**exponent) for step, value in points]
    return Curve(
        name=name,
        unit=f"10{str(exponent).translate(_RAISED)}" if exponent else "",
        wide=drawing(name, scaled, history, size=WIDE),
        narrow=drawing(name, scaled, history, size=NARROW),
    )


def exponent_of(largest: float) -> int:
    """A power of ten that leaves one digit before the point; 0 where the numbers are short as they are."""
    if largest == 0 or 0.1 <= largest < 1000:
        return 0
    return math.floor(math.log10(largest))


def drawing(name: str, points: list[Point], history: History, *, size: tuple[int, int]) -> str:
    """The SVG; each point is the mean of as many steps where there are many."""
    width, height = size
    drawn = thinned(points)
    marks = ticks(0.0, max(value for _, value in drawn), most=height // 50)
    scale = Scale(width, height, last_step=history.epochs[-1].step, low=marks[0], high=marks[-1])
    parts = [*grid(scale, marks), *epoch_marks(scale, [each.step for each in history.epochs]), line("training", scale, drawn)]
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name} by step">\n' + "\n".join(parts) + "\n</svg>"
