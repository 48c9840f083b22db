from typing import Any

import pytest

from components.render_config.choose.rows import held_out_rows
from components.render_config.cost.after_training import LEAST_ROWS, plan_after
from components.render_config.cost.hardware import Machine
from components.render_config.dataset_facts import DatasetFacts
from components.render_config.decision import Section
from components.shared.documents.plan import AfterPlan
from components.shared.spec.file import spec_from_parameter
from tests.support.settings import on_gpus, setting_of

SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 400,
    "max_position_embeddings": 4096,
}
SEVEN_B = SMALL | {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
SEVENTY_B = SEVEN_B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}


def after(
    config: dict[str, Any],
    *,
    num_held_out: int = 500,
    backend: str = "pytorchjob",
    data: dict[str, Any] | None = None,
    **evaluation: Any,
) -> Section[AfterPlan]:
    """In a cluster, on CPUs of which nothing is known."""
    setting = setting_of(
        config,
        machine=Machine(num_cores=2),
        row_tokens=2048,
        backend=backend,
        hardware={},
        evaluation=evaluation,
        data={"train": "s3://b/d", "row_tokens": 2048} | (data or {}),
    )
    return plan_after(setting, num_held_out=num_held_out)


def test_a_small_model_is_measured_on_all_held_out_rows() -> None:
    assert after(SMALL).value.held_out_rows == 500


@pytest.mark.parametrize("config", [SEVEN_B, SEVENTY_B], ids=["7B", "70B"])
def test_a_large_model_is_measured_on_as_many_rows_as_end_long_before_the_pods_deadline(
    config: dict[str, Any],
) -> None:
    planned = after(config).value
    assert LEAST_ROWS <= planned.held_out_rows < 500
    assert planned.hours is not None
    assert planned.hours < 5


def test_rows_that_are_asked_for_are_measured_and_cautioned_about_when_they_end_too_late() -> None:
    planned = after(SEVEN_B, rows=400)
    assert planned.value.held_out_rows == 400
    (caution,) = planned.cautions
    assert caution.startswith("evaluation.rows: 400 rows take about ")
    assert after(SEVEN_B).cautions == ()


def test_a_run_that_holds_nothing_out_is_cautioned_and_measures_no_row() -> None:
    spec = spec_from_parameter(
        {
            "name": "t",
            "store": "s",
            "model": {"source": "m"},
            "data": {"train": "d", "held_out_share": 0},
        }
    )
    facts = DatasetFacts(digest="", num_rows=100, num_tokens=1000, model_revision=None)
    assert held_out_rows(spec, facts) == 0
    planned = after(SMALL, num_held_out=0, data={"held_out_share": 0})
    assert planned.value.held_out_rows == 0
    (caution,) = planned.cautions
    assert caution.startswith("data.held_out_share is 0, so nothing is held out")
    assert planned.reasons["after.held_out_rows"] == "nothing is held out"


def test_no_more_rows_are_promised_than_there_are() -> None:
    assert after(SMALL, num_held_out=3, rows=400).value.held_out_rows == 3


def test_pods_of_larger_models_ask_for_more() -> None:
    small, large = after(SEVEN_B).value, after(SEVENTY_B).value
    assert (small.cpus, large.cpus) == (4, 32)
    assert small.export_bytes / 2**30 == pytest.approx(26, abs=1)
    assert large.evaluate_bytes > 9 * small.evaluate_bytes


def test_a_machine_with_a_gpu_measures_all_rows_there() -> None:
    setting = on_gpus(setting_of(SEVEN_B, row_tokens=2048), gpu="gpu", device=None)
    planned = plan_after(setting, num_held_out=500).value
    assert (planned.held_out_rows, planned.hours) == (500, None)
