"""config.json of this year's models: the sizes that their pages state, or one line."""

import json
from typing import Any

import pytest

from benchmarks.model_configs import FILE, outcome
from components.render_config.model.families import FAMILIES
from components.shared.model.folder import config_problems
from components.shared.model.row_packing import untrainable

MODELS: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
COUNTED = [name for name, each in MODELS.items() if each["config"]["model_type"] in FAMILIES]
REFUSED = [
    name
    for name, each in MODELS.items()
    if config_problems(each["config"]) or untrainable(each["config"])
]


def test_there_are_configs_of_thirty_models_and_of_many_types() -> None:
    assert len(MODELS) >= 30
    assert len({each["config"]["model_type"] for each in MODELS.values()}) >= 30
    assert len(COUNTED) >= 12
    assert len(REFUSED) >= 5


@pytest.mark.parametrize("name", COUNTED)
def test_a_counted_model_has_as_many_parameters_as_its_page_states(name: str) -> None:
    counted, lines = outcome(name, MODELS[name]["config"])
    assert counted is not None, lines
    assert counted / 1e9 == pytest.approx(MODELS[name]["billions"], rel=0.005)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_trained_is_refused_in_one_line(name: str) -> None:
    counted, lines = outcome(name, MODELS[name]["config"])
    assert (counted, len(lines)) == (None, 1)
