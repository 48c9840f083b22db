import re
import xml.etree.ElementTree as ElementTree

import pytest

from components.shared.documents.results import EpochLosses, History, StepLosses
from components.write_report.curves import curves, exponent_of


def history(norms: list[float | None], lr: float = 2e-4) -> History:
    steps = tuple(StepLosses(step=n, loss=3.0, lr=lr * n, grad_norm=norm) for n, norm in enumerate(norms, 1))
    epochs = (EpochLosses(epoch=1, step=len(norms), loss=3.0, held_out_loss=2.0),)
    return History(start_held_out_loss=3.0, seconds=1.0, tokens=10, epochs=epochs, steps=steps)


def test_each_value_has_a_drawing_that_holds_every_step_inside_it() -> None:
    made = curves(history([2.0, 1.0, 0.5]))
    assert [each.name for each in made] == ["learning rate", "gradient norm before clipping"]
    for svg, width, height in ((made[0].wide, 760, 180), (made[1].narrow, 380, 170)):
        ElementTree.fromstring(svg)
        (points,) = re.findall(r'points="([^"]+)"', svg)
        places = [tuple(map(float, pair.split(","))) for pair in points.split()]
        assert len(places) == 3
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places)


def test_a_higher_value_stands_higher() -> None:
    (points,) = re.findall(r'points="([^"]+)"', curves(history([2.0, 1.0, 0.5]))[1].wide)
    heights = [float(pair.split(",")[1]) for pair in points.split()]
    assert heights == sorted(heights)


def test_small_numbers_are_written_in_powers_of_ten() -> None:
    (rate, _) = curves(history([1.0, 1.0], lr=2e-4))
    assert rate.unit == "10⁻⁴"
    assert ">4<" in rate.wide


def test_steps_without_a_norm_are_left_out_and_none_at_all_has_no_drawing() -> None:
    assert len(curves(history([None, 1.0]))) == 2
    assert [each.name for each in curves(history([None, None]))] == ["learning rate"]


@pytest.mark.parametrize(("largest", "exponent"), [(0.0, 0), (0.1, 0), (999.0, 0), (0.002, -3), (52_000.0, 4)])
def test_exponent_leaves_one_digit_before_the_point(largest: float, exponent: int) -> None:
    assert exponent_of(largest) == exponent
