from typing import Any

import pytest

from components.render_config.cost.after_training import LEAST_ROWS, after_cautions, after_reasons, plan_after
from components.render_config.cost.hardware import Hardware
from components.render_config.model.architectures import architecture_of
from components.render_config.planner import DatasetFacts, held_out_rows
from components.shared.documents.plan import AfterPlan
from components.shared.spec.file import spec_from_parameter

CPU = Hardware(gpu=None, device=None, gpu_bytes=None, host_bytes=None, num_nodes=1, processes_per_node=1, margin=0.1)
SMALL = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 400, "max_position_embeddings": 4096,
}  # fmt: skip
SEVEN_B = SMALL | {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000,
}  # fmt: skip
SEVENTY_B = SEVEN_B | {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
}  # fmt: skip


def spec_with(*, backend: str = "pytorchjob", **evaluation: Any):
    tree = {
        "name": "t", "store": "s3://b/r", "backend": backend, "model": {"source": "m"}, "data": {"train": "s3://b/d", "row_tokens": 2048},
        "evaluation": evaluation,
    }  # fmt: skip
    return spec_from_parameter(tree)


def after(config: dict[str, Any], *, num_held_out: int = 500, hardware: Hardware = CPU, **spec: Any) -> AfterPlan:
    rows = {"num_held_out": num_held_out, "row_tokens": 2048, "mean_row_tokens": 2048}
    return plan_after(spec_with(**spec), architecture_of(config), hardware, **rows, num_cores=2)


def test_a_small_model_is_measured_on_all_held_out_rows() -> None:
    assert after(SMALL).held_out_rows == 500


@pytest.mark.parametrize("config", [SEVEN_B, SEVENTY_B], ids=["7B", "70B"])
def test_a_large_model_is_measured_on_as_many_rows_as_end_long_before_the_pods_deadline(config: dict[str, Any]) -> None:
    planned = after(config)
    assert LEAST_ROWS <= planned.held_out_rows < 500
    assert planned.hours is not None
    assert planned.hours < 5


def test_rows_that_are_asked_for_are_measured_and_cautioned_about_when_they_end_too_late() -> None:
    spec = spec_with(rows=400)
    planned = after(SEVEN_B, rows=400)
    assert planned.held_out_rows == 400
    (caution,) = after_cautions(spec, planned)
    assert caution.startswith("evaluation.rows: 400 rows take about ")
    assert not list(after_cautions(spec_with(), after(SEVEN_B)))


def test_a_run_that_holds_nothing_out_is_cautioned_and_measures_no_row() -> None:
    spec = spec_from_parameter(
        {"name": "t", "store": "s3://b/r", "model": {"source": "m"}, "data": {"train": "s3://b/d", "held_out_share": 0}}
    )
    facts = DatasetFacts(digest="", num_rows=100, num_tokens=1000, model_revision=None)
    assert held_out_rows(spec, facts) == 0
    planned = after(SMALL, num_held_out=0)
    assert planned.held_out_rows == 0
    (caution,) = after_cautions(spec, planned)
    assert caution.startswith("data.held_out_share is 0, so nothing is held out")
    assert after_reasons(spec, planned, num_held_out=0)["after.held_out_rows"] == "nothing is held out"


def test_no_more_rows_are_promised_than_there_are() -> None:
    assert after(SMALL, num_held_out=3, rows=400).held_out_rows == 3


def test_pods_of_larger_models_ask_for_more() -> None:
    small, large = after(SEVEN_B), after(SEVENTY_B)
    assert (small.cpus, large.cpus) == (4, 32)
    assert small.export_bytes / 2**30 == pytest.approx(26, abs=1)
    assert large.evaluate_bytes > 9 * small.evaluate_bytes


def test_a_machine_with_a_gpu_measures_all_rows_there() -> None:
    gpu = Hardware(gpu="gpu", device=None, gpu_bytes=24 * 2**30, host_bytes=None, num_nodes=1, processes_per_node=1, margin=0.1)
    planned = after(SEVEN_B, hardware=gpu, backend="local")
    assert (planned.held_out_rows, planned.hours) == (500, None)
