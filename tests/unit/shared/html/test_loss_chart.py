import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from components.shared.documents.results import EpochLosses, History, StepLosses
from components.shared.html.loss_chart import MOST_POINTS, loss_chart, thinned, ticks


def history(num_steps: int) -> History:
    steps = tuple(StepLosses(step=step, loss=4.0 - 2 * step / num_steps, lr=1e-3, grad_norm=1.0) for step in range(1, num_steps + 1))
    epochs = tuple(EpochLosses(epoch=e, step=num_steps * e // 2, loss=3.0, held_out_loss=4.5 - e) for e in (1, 2))
    return History(start_held_out_loss=4.5, seconds=10.0, tokens=100, epochs=epochs, steps=steps)


def test_the_drawing_is_well_formed_and_holds_each_held_out_loss() -> None:
    drawing = ElementTree.fromstring(loss_chart(history(20), width=760, height=300))
    circles = [element for element in drawing if element.get("class") == "held-out" and element.tag == "circle"]
    assert len(circles) == 3
    assert [element.text for element in drawing if element.get("class") == "value"] == ["4.500", "2.500"]


def test_without_held_out_data_only_the_training_loss_is_drawn() -> None:
    whole = history(20)
    epochs = tuple(epoch.model_copy(update={"held_out_loss": None}) for epoch in whole.epochs)
    drawing = loss_chart(whole.model_copy(update={"start_held_out_loss": None, "epochs": epochs}), width=760, height=300)
    ElementTree.fromstring(drawing)
    assert 'aria-label="Training loss by step"' in drawing
    assert "circle" not in drawing


def test_every_point_lies_inside_the_drawing() -> None:
    drawing = loss_chart(history(20), width=760, height=300)
    places = [tuple(map(float, pair.split(","))) for points in re.findall(r'points="([^"]+)"', drawing) for pair in points.split()]
    assert len(places) == 20 + 3
    assert all(0 <= x <= 760 and 0 <= y <= 300 for x, y in places)


def test_a_long_training_is_drawn_by_few_points_with_the_same_mean() -> None:
    points = [(float(x), float(x % 7)) for x in range(6000)]
    few = thinned(points)
    assert len(few) <= MOST_POINTS
    assert sum(y for _, y in few) / len(few) == pytest.approx(sum(y for _, y in points) / len(points))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.31, 4.77), (1e-4, 3e-4), (5.0, 5.0)])
def test_ticks_cover_the_range(low: float, high: float) -> None:
    marks = ticks(low, high, most=6)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert len(marks) <= 8


@pytest.mark.parametrize("num_steps", [2, 20, 97, 990])
def test_the_last_step_stands_under_the_axis_and_no_mark_runs_into_it(num_steps: int) -> None:
    drawing = loss_chart(history(num_steps), width=380, height=260)
    marks = [(float(x), label) for x, label in re.findall(r'x="([\d.]+)" y="240" text-anchor="middle">([\d,]+)<', drawing)]
    assert marks[-1][1] == f"{num_steps:,}"
    assert all(right - left > 20 for (left, _), (right, _) in pairwise(marks))


@pytest.mark.parametrize("from_step", [1, 7])
def test_a_training_that_came_to_nothing_is_drawn_as_far_as_it_went(from_step: int) -> None:
    whole = history(20)
    steps = tuple(step.model_copy(update={"loss": math.nan}) if step.step >= from_step else step for step in whole.steps)
    epochs = tuple(epoch.model_copy(update={"held_out_loss": math.nan}) for epoch in whole.epochs)
    drawing = loss_chart(whole.model_copy(update={"steps": steps, "epochs": epochs}), width=760, height=300)
    assert "nan" not in drawing
    assert len(ElementTree.fromstring(drawing)) > 3
