"""What the plan decides so that the losses come out right: number format of sums, loss scale,
router loss; and what it says of targets."""

from typing import Any

import pytest

from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.render_config.render.files import deepspeed_json
from components.shared.documents.plan import Plan, ZeroPlan
from components.shared.errors import HaganeError
from components.shared.spec.file import load_spec, spec_from_parameter
from tests.support.example_plans import ROOT

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 400,
    "max_position_embeddings": 512,
}
MIXTRAL = {
    **LLAMA,
    "model_type": "mixtral",
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
MIXED = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 4,
    "moe_intermediate_size": 32,
    "mlp_only_layers": [1],
}
DATASET = DatasetFacts(digest="d" * 64, num_rows=198, num_tokens=9_000, model_revision=None)


def planned(
    config: dict[str, Any] = LLAMA, *, zero: Any = "auto", num_gpus: int = 1, **training: Any
) -> Plan:
    """On A100s, bf16, one row in a micro-batch."""
    tree = {
        "name": "t",
        "store": "s",
        "model": {"source": "m"},
        "data": {"train": "d", "row_tokens": 64},
        "training": {"global_batch": 64, "micro_batch": 1, **training},
        "zero": zero,
        "hardware": {"gpu": "a100-80gb", "host_memory_gib": 100, "processes_per_node": num_gpus},
    }
    return make_plan(spec_from_parameter(tree), DATASET, config, machine=Machine())


def test_gradients_of_many_micro_batches_are_summed_in_fp32() -> None:
    plan = planned()
    assert (plan.zero, plan.steps.grad_accum, plan.fp32_gradient_sums) == (
        ZeroPlan(stage=2),
        64,
        True,
    )
    assert "sums gradients of many micro-batches in fp32" in plan.reasons["zero"]
    spec = spec_from_parameter(
        {"name": "t", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}
    )
    assert deepspeed_json(spec, plan, hidden_size=64)["data_types"] == {"grad_accum_dtype": "fp32"}
    assert "data_types" not in deepspeed_json(spec, planned(global_batch=32), hidden_size=64)


@pytest.mark.parametrize(
    "training", [{"global_batch": 63}, {"precision": "fp32"}, {"micro_batch": 2}]
)
def test_few_micro_batches_and_fp32_need_no_other_stage(training: dict[str, Any]) -> None:
    plan = planned(**training)
    assert (plan.zero, plan.fp32_gradient_sums) == (ZeroPlan(stage=0), False)


def test_what_is_summed_in_16_bits_all_the_same_is_said() -> None:
    [asked] = [
        caution for caution in planned(zero={"stage": 0}).cautions if "summed in 16 bits" in caution
    ]
    assert asked.startswith("zero: with no ZeRO, gradients of 64 micro-batches")
    several = planned(
        method="full", num_gpus=2, global_batch=128
    )  # ZeRO-2 would reduce all gradients 64 times a step
    assert several.zero == ZeroPlan(stage=1)
    assert any(
        "gradients of 64 micro-batches are summed in 16 bits" in caution
        for caution in several.cautions
    )
    assert not any("16 bits" in caution for caution in planned().cautions)


def gradient_bytes(plan: Plan) -> int:
    return next(term.num_bytes for term in plan.memory.gpu if term.name == "gradients")


def test_sums_in_fp32_are_counted_in_memory() -> None:
    few, many = (
        planned(method="full", zero={"stage": 2}, global_batch=batch) for batch in (32, 64)
    )
    assert gradient_bytes(few) == 2 * few.num_trainable
    assert gradient_bytes(many) == 4 * many.num_trainable


def on_t4(model_type: str, *overrides: str) -> Plan:
    """LoRA on a GPU without bf16."""
    config = {**LLAMA, "model_type": model_type, "head_dim": 16}
    file = ROOT / "specs" / "plans" / "gemma-2-baku-2b-lora-t4.yaml"
    return make_plan(
        load_spec(file, ["data.row_tokens=64", *overrides]), DATASET, config, machine=Machine()
    )


def test_fp16_is_never_trained_without_zero_which_scales_its_loss() -> None:
    assert on_t4("llama").zero == ZeroPlan(stage=1)
    with pytest.raises(
        HaganeError,
        match=r"zero.stage: found 0, allowed 1, 2 or 3 in fp16, .* Fix: set zero.stage: 1, or auto",
    ):
        on_t4("llama", "zero={stage: 0}")


@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "gemma3_text"])
def test_a_gemma_is_trained_in_fp32_where_there_is_no_bf16(model_type: str) -> None:
    """Its activations are no numbers of fp16: DeepSpeed would skip steps down to the smallest
    scale, and then give up."""
    plan = on_t4(model_type)
    assert plan.precision == "fp32"
    assert f"a {model_type} model's activations pass 65,504" in plan.reasons["precision"]


def test_fp16_begins_with_a_loss_scale_that_does_not_overflow_at_once() -> None:
    file = ROOT / "specs" / "plans" / "gemma-2-baku-2b-lora-t4.yaml"
    in_fp16 = on_t4("llama")
    config = deepspeed_json(load_spec(file), in_fp16, hidden_size=64)
    assert config["fp16"] == {"enabled": True, "initial_scale_power": 12}
    assert "2^16" in in_fp16.reasons["files.deepspeed.fp16.initial_scale_power"]
    assert deepspeed_json(load_spec(file), on_t4("gemma2"), hidden_size=64)["fp16"] == {
        "enabled": False
    }


def test_gradients_of_lora_are_reduced_in_one_bucket_that_is_not_tiny() -> None:
    """Of hidden size 64 h² would be 8 KB; overlapping what little LoRA reduces has an open data
    race."""
    spec = spec_from_parameter(
        {"name": "t", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}
    )
    lora, full = (
        planned(method=method, zero={"stage": 2}, num_gpus=2) for method in ("lora", "full")
    )
    for plan, overlaps, num_buckets in ((lora, False, 1), (full, True, 2)):
        zero = deepspeed_json(spec, plan, hidden_size=64)["zero_optimization"]
        assert zero["overlap_comm"] is overlaps
        assert zero["reduce_bucket_size"] == 5_000_000
        (buckets,) = [term for term in plan.memory.gpu if term.name == "communication buckets"]
        assert (
            buckets.num_bytes == 2 * num_buckets * plan.num_trainable
        )  # all of it is smaller than a bucket
    assert (
        deepspeed_json(spec, full, hidden_size=4096)["zero_optimization"]["reduce_bucket_size"]
        == 4096**2
    )


def test_a_router_loss_that_the_config_asks_for_is_left_out_and_said() -> None:
    asked = planned({**MIXTRAL, "output_router_logits": True})
    assert asked.router_loss == "left out"
    assert any(
        "adds the router's auxiliary loss (output_router_logits: true); training leaves it out"
        in each
        for each in asked.cautions
    )
    assert planned(MIXTRAL).router_loss == "none"
    assert planned().reasons["router_loss"] == "the model has no experts"


def test_layers_that_peft_cannot_reach_are_named_where_all_are_asked_for() -> None:
    assert (
        planned().reasons["lora.target_modules"]
        == "all linear layers of the blocks, never the head or a router (llama)"
    )
    mixed = planned(MIXED).reasons["lora.target_modules"]
    assert mixed.startswith(
        "all linear layers of the blocks but mlp.down_proj, mlp.gate_proj, mlp.up_proj, which PEFT "
        "cannot reach, "
    )
    assert any(
        "vLLM may drop an adapter of experts" in caution for caution in planned(MIXED).cautions
    )
