import pytest

from components.render_config.cost.gpus import GPUS
from components.shared.documents.plan import Plan, TimePlan
from components.shared.spec.file import load_spec
from tests.support.example_plans import ROOT, plan_example


def planned(name: str, *overrides: str) -> Plan:
    return plan_example(load_spec(ROOT / "specs" / "plans" / f"{name}.yaml", overrides))


def time_of(name: str, *overrides: str) -> TimePlan:
    time = planned(name, *overrides).time
    assert time is not None
    return time


def test_fp32_is_counted_at_the_gpus_fp32_speed() -> None:
    wide = ("training.precision=fp32", "hardware.gpu=b200", "training.micro_batch=1")
    half, full = (time_of("elyza-7b-lora-1x24gb", *wide[1:], *extra) for extra in ((), wide[:1]))
    assert full.parts["compute"] / half.parts["compute"] == pytest.approx(GPUS["b200"].half_tflops / GPUS["b200"].fp32_tflops)


def test_smaller_passes_read_the_weights_more_often() -> None:
    few, many = (time_of("elyza-7b-lora-1x24gb", f"training.micro_batch={size}") for size in (4, 1))
    assert many.parts["memory"] == pytest.approx(4 * few.parts["memory"], rel=0.05)
    assert many.seconds_per_step > few.seconds_per_step
    assert many.parts["compute"] == few.parts["compute"]


def test_the_price_is_of_all_hours_on_all_gpus() -> None:
    plan = planned("elyza-7b-full-8x80gb", "hardware.price_per_gpu_hour=2.5")
    assert plan.time is not None
    assert plan.time.price == pytest.approx(plan.time.hours * 8 * 2.5)


def test_the_estimate_lies_within_its_range() -> None:
    for name in ("elyza-7b-full-1x80gb", "swallow-70b-lora-8x80gb", "llama-3-elyza-8b-full-2x8x80gb", "gpt2-medium-full-cpu"):
        time = time_of(name)
        assert time.low < time.seconds_per_step < time.high
        assert time.hours_low < time.hours < time.hours_high


def test_a_step_that_outlasts_the_grace_is_not_promised_to_be_saved_on_sigterm() -> None:
    short = planned("elyza-7b-lora-1x24gb")
    assert not short.checkpoints.saves_on_sigterm
    assert "the step under way, about 39 s" in short.reasons["checkpoints.saves_on_sigterm"]
    assert planned("elyza-7b-lora-1x24gb", "checkpoints.grace_seconds=120").checkpoints.saves_on_sigterm


def test_a_last_batch_of_few_rows_takes_the_time_of_few_rows() -> None:
    one = time_of("elyza-7b-lora-1x24gb", "training.global_batch=5000", "training.micro_batch=1", "training.epochs=1")
    large = time_of("elyza-7b-lora-1x24gb", "training.global_batch=1000000", "training.micro_batch=1", "training.epochs=1")
    assert large.hours == pytest.approx(one.hours, rel=0.05)


def test_small_rows_take_the_time_of_launching_kernels() -> None:
    tiny = time_of("elyza-7b-lora-1x24gb", "data.row_tokens=64", "training.micro_batch=1", "training.global_batch=8")
    assert tiny.seconds_per_step >= 8 * 32 * 0.005


def test_a_faster_network_shortens_training_over_nodes() -> None:
    name = "llama-3-elyza-8b-full-2x8x80gb"
    slow, fast = (time_of(name, f"hardware.network_gbit_s={speed}").parts["communication"] for speed in (100, 1600))
    assert slow == pytest.approx(16 * fast)


def test_offload_moves_the_summed_gradient_in_each_micro_step() -> None:
    overrides = ("zero={stage: 2, offload_optimizer: cpu}", "training.global_batch=32")
    few, many = (time_of("elyza-7b-full-1x80gb", *overrides, f"training.micro_batch={size}").parts["host"] for size in (2, 1))
    assert many > 1.3 * few
