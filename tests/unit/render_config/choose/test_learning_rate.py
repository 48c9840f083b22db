"""The learning rate that a spec leaves open follows the method and the model's size, with its
source."""

from typing import Any

import pytest

from components.render_config.choose.learning_rate import choose_learning_rate
from components.shared.errors import HaganeError
from components.shared.spec.file import spec_from_parameter
from components.shared.spec.run_spec import RunSpec


def spec_with(**training: Any) -> RunSpec:
    return spec_from_parameter(
        {
            "name": "t",
            "store": "s",
            "model": {"source": "m"},
            "data": {"train": "d"},
            "training": training,
        }
    )


@pytest.mark.parametrize(
    ("method", "num_parameters", "peak", "source"),
    [
        ("lora", 7e9, 2e-4, "QLoRA"),
        ("lora", 70e9, 1e-4, "QLoRA"),
        ("full", 7e9, 2e-5, "Stanford Alpaca"),
        ("full", 13e9, 1e-5, "Stanford Alpaca"),
    ],
)
def test_auto_takes_the_rate_of_a_published_recipe(
    method: str, num_parameters: float, peak: float, source: str
) -> None:
    found = choose_learning_rate(spec_with(method=method), int(num_parameters))
    assert (found.value, found.cautions) == (peak, ())
    assert source in found.reason


def test_a_rate_of_loras_in_full_training_is_warned_of_and_kept() -> None:
    found = choose_learning_rate(spec_with(method="full", lr_peak=2e-4), 7_000_000_000)
    assert found.value == 2e-4
    (line,) = found.cautions
    assert line.startswith(
        "training.lr_peak: 0.0002 is far from 2e-05, which is usual for full training of 7B "
        "parameters"
    )
    assert line.endswith("Fix: set training.lr_peak: auto, which takes that")


def test_a_rate_near_the_usual_one_and_any_rate_of_a_small_model_is_taken_as_it_is() -> None:
    assert choose_learning_rate(spec_with(lr_peak=1e-3), 7_000_000_000).cautions == ()
    assert choose_learning_rate(spec_with(lr_peak=5e-2), 100_000_000).cautions == ()


@pytest.mark.parametrize("value", ["fast", True, 0, 1.5])
def test_what_is_no_rate_is_refused(value: Any) -> None:
    with pytest.raises(
        HaganeError, match=r"lr_peak: got .*, must be auto or a number above 0, at most 1"
    ):
        spec_with(lr_peak=value)
