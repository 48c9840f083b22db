import pytest

from components.render_config.choose.choose_zero import choose
from components.render_config.choose.zero_options import ORDER, it_fits
from components.render_config.choose_setting import choose_setting
from components.render_config.planner import NO_DATASET, Machine
from components.shared.documents.plan import Plan, ZeroPlan
from components.shared.errors import HaganeError, SpecError
from components.shared.spec.file import load_spec
from tests.support.example_plans import ROOT, plan_example


def planned(name: str, *overrides: str) -> Plan:
    return plan_example(load_spec(ROOT / "specs" / "plans" / f"{name}.yaml", overrides))


def test_the_largest_micro_batch_that_fits_is_taken_and_the_next_would_not_fit() -> None:
    spec = load_spec(ROOT / "specs/plans/elyza-7b-lora-1x24gb.yaml")
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    }
    setting = choose_setting(spec, {**config, "vocab_size": 32000}, Machine(), NO_DATASET).value
    chosen = choose(setting).value
    assert (chosen.zero, chosen.micro_batch) == (ZeroPlan(stage=0), 4)
    assert it_fits(setting, chosen.zero, 4)
    assert not it_fits(setting, chosen.zero, 8)


def test_less_memory_steps_down_in_the_order_of_slowing() -> None:
    chosen = [
        planned(
            "rinna-3-6b-full-4x24gb", "hardware.gpu=null", f"hardware.gpu_memory_gib={gib}"
        ).zero
        for gib in (80, 27, 24, 20, 16, 8)
    ]
    places = [ORDER.index(zero) for zero in chosen]
    assert places == sorted(places)
    assert places[0] == ORDER.index(ZeroPlan(stage=1))
    assert ORDER[places[-1]].offload_optimizer


def test_what_the_spec_fixes_is_obeyed_and_cautioned_about_when_wasteful() -> None:
    plan = planned("elyza-7b-lora-offload-asked")
    assert plan.zero == ZeroPlan(stage=3, offload_optimizer=True, offload_parameters=True)
    assert "is what the spec asks for, but no ZeRO fits too and is faster" in plan.cautions[0]
    assert "LoRA's optimizer state is 0.6 GiB per GPU" in plan.cautions[1]


def test_full_training_gets_no_stage_0_unless_that_is_asked_for() -> None:
    name, large = "rinna-3-6b-full-4x24gb", "hardware.gpu=a100-80gb"
    assert planned(name, large, "zero={offload_optimizer: none}").zero == ZeroPlan(stage=1)
    assert planned(name, large, "zero={stage: 0}").zero == ZeroPlan(stage=0)


def test_a_training_that_does_not_fit_is_refused_with_three_changes_that_fit() -> None:
    with pytest.raises(SpecError) as caught:
        planned("swallow-70b-full-8x80gb")
    first, *changes = caught.value.problems
    assert "does not fit" in first
    assert len(changes) == 3
    assert all(line.startswith("hardware: fix: ") and "GiB" in line for line in changes)
    assert (
        planned(
            "swallow-70b-full-8x80gb", "hardware.num_nodes=2", "training.global_batch=64"
        ).zero.stage
        == 3
    )


def test_offload_is_not_counted_on_when_the_host_is_not_stated() -> None:
    with pytest.raises(SpecError, match="which is not stated: offload is not counted on"):
        planned("elyza-7b-full-1x80gb", "hardware.host_memory_gib=null")


def test_an_unknown_gpu_is_reported_with_near_misses_and_with_all_else_that_is_wrong() -> None:
    with pytest.raises(HaganeError) as caught:
        planned(
            "elyza-7b-lora-1x24gb",
            "hardware.gpu=a100",
            "training.global_batch=3",
            "hardware.processes_per_node=2",
        )
    gpu, batch = caught.value.problems
    assert gpu.startswith("hardware.gpu: 'a100' is not known; did you mean 'a100-")
    assert batch.startswith("training.global_batch: got 3")


def test_a_gpu_without_bf16_gets_fp16() -> None:
    assert (
        planned(
            "tinyswallow-full-1x24gb",
            "training.method=lora",
            "hardware.gpu=t4",
            "hardware.gpu_memory_gib=null",
        ).precision
        == "fp16"
    )


def test_bf16_that_a_gpu_does_not_compute_is_refused() -> None:
    with pytest.raises(
        HaganeError,
        match="got 'bf16', but the t4 does not compute it; set auto, which is fp16 there",
    ):
        planned("gemma-2-baku-2b-lora-t4", "training.precision=bf16")
    assert (
        planned(
            "gemma-2-baku-2b-lora-t4", "training.precision=fp32", "data.row_tokens=256"
        ).precision
        == "fp32"
    )


def test_what_is_taken_of_a_gpu_without_a_name_is_said() -> None:
    plan = planned("elyza-7b-lora-1x24gb", "hardware.gpu=null", "hardware.gpu_memory_gib=24")
    assert plan.precision == "bf16"
    assert "is taken to compute bf16" in plan.reasons["precision"]


@pytest.mark.parametrize(
    "name",
    [
        "elyza-7b-full-8x80gb",
        "swallow-mx-8x7b-experts-8x80gb",
        "gpt2-medium-full-cpu",
        "swallow-70b-lora-8x80gb",
    ],
)
def test_the_picture_has_every_stage_and_what_each_bar_is_made_of(name: str) -> None:
    plan = planned(name)
    shown = [option.zero for option in plan.memory.options]
    assert {zero.stage for zero in shown} == {0, 1, 2, 3}
    assert plan.zero in shown
    for option in plan.memory.options:
        assert sum(option.gpu_kinds.values()) == option.gpu_bytes
        assert sum(option.host_kinds.values()) == option.host_bytes


@pytest.mark.parametrize(
    "name", ["elyza-7b-lora-offload-asked", "elyza-7b-full-8x80gb", "elyza-7b-lora-1x24gb"]
)
def test_the_bar_of_the_chosen_option_is_as_long_as_the_verdict_says(name: str) -> None:
    plan = planned(name)
    (chosen,) = [each for each in plan.memory.options if each.zero == plan.zero]
    assert (chosen.gpu_bytes, chosen.host_bytes) == (plan.memory.gpu_bytes, plan.memory.host_bytes)
