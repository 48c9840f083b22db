from typing import Any

import pytest

from components.render_config.choose.quantization import choose_quantization
from components.render_config.cost.device_memory import MAX_LIVE
from components.render_config.cost.quantized import NF4_BYTES
from components.render_config.model.architectures import architecture_of
from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.shared.documents.plan import Plan
from components.shared.errors import HaganeError, ModelError, SpecError
from components.shared.spec.file import spec_from_parameter

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
LLAMA_70B = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4}
QUANTIZED = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
DATASET = DatasetFacts(digest="d" * 64, num_rows=198, num_tokens=90_000, model_revision=None)


def spec_with(quantization: str, **fields: Any):
    return spec_from_parameter(
        {
            "name": "t",
            "store": "s",
            "model": {"source": "m", "quantization": quantization},
            "data": {"train": "d", "row_tokens": 1024},
            **fields,
        }
    )


def plan_of(quantization: str, config: dict[str, Any], gpu: str, **zero: Any) -> Plan:
    hardware = {"gpu": gpu, "host_memory_gib": 512, "processes_per_node": 4}
    spec = spec_with(quantization, hardware=hardware, **zero)
    return make_plan(spec, DATASET, config, machine=Machine(flags=frozenset({"cuda"})))


def term(plan: Plan, name: str) -> int:
    assert plan.memory is not None
    return sum(each.num_bytes for each in plan.memory.gpu if each.name == name)


def test_all_linear_layers_of_the_blocks_are_in_4_bits_and_nothing_else() -> None:
    architecture = architecture_of(LLAMA_8B)
    choice = choose_quantization(spec_with("nf4"), LLAMA_8B, architecture).value
    norms = 2 * 32 * 4096 + 4096
    embeddings_and_head = 2 * 128256 * 4096
    assert choice.num_parameters == architecture.num_parameters - embeddings_and_head - norms
    assert choice.largest == 4096 * 14336


def test_a_base_in_4_bits_takes_about_a_quarter_of_the_gpu_memory_of_its_layers() -> None:
    zero = {"zero": {"stage": 0}}
    whole, quantized = (plan_of(kind, LLAMA_8B, "a100-80gb", **zero) for kind in ("none", "nf4"))
    num_quantized = quantized.model.num_quantized
    saved = term(whole, "weights") - term(quantized, "weights")
    assert saved == pytest.approx((2 - 0.5159) * num_quantized, rel=1e-3)
    assert term(quantized, "weights turned back from 4 bits") == 2 * 4096 * 14336
    assert term(whole, "weights turned back from 4 bits") == 0
    assert quantized.model.quantization == "nf4"
    assert "as model.quantization asks" in quantized.reasons["model.quantization"]


def test_turning_weights_back_makes_a_step_longer() -> None:
    zero = {"zero": {"stage": 0}}
    whole, quantized = (plan_of(kind, LLAMA_8B, "a100-80gb", **zero) for kind in ("none", "nf4"))
    assert whole.time is not None
    assert quantized.time is not None
    assert quantized.time.seconds_per_step > whole.time.seconds_per_step


def test_the_plan_takes_less_of_zero_where_4_bits_fit() -> None:
    """70 billion parameters in bf16 are 141 GB, in 4 bits 39."""
    assert plan_of("nf4", LLAMA_70B, "a100-80gb").zero.stage < 3
    assert plan_of("none", LLAMA_70B, "a100-80gb").zero.stage == 3


def test_zero_3_is_planned_with_the_whole_model_on_each_gpu_while_it_loads() -> None:
    with pytest.raises(SpecError, match=r"hardware: the training does not fit: even by ZeRO-3"):
        plan_of("nf4", LLAMA_70B, "l4")


def test_files_in_4_bits_decide_where_the_spec_leaves_it_open() -> None:
    config = {**LLAMA_8B, "quantization_config": QUANTIZED}
    assert plan_of("auto", config, "a100-80gb").model.quantization == "nf4"
    assert plan_of("auto", LLAMA_8B, "a100-80gb").model.quantization == "none"
    with pytest.raises(HaganeError, match=r"model.quantization: found none, allowed auto or nf4"):
        plan_of("none", config, "a100-80gb")


@pytest.mark.parametrize(
    ("config", "reported"),
    [
        ({**GPT2, "vocab_size": 400, "n_positions": 512}, "layers are Conv1D"),
        (
            {**LLAMA_8B, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
            "experts' weights have three dimensions",
        ),
    ],
)
def test_models_whose_weights_would_stay_as_they_are_are_refused(
    config: dict[str, Any], reported: str
) -> None:
    with pytest.raises(ModelError) as caught:
        choose_quantization(spec_with("nf4"), config, architecture_of(config))
    assert reported in caught.value.problems[0]
    assert caught.value.problems[0].endswith("Fix: set model.quantization: none")


def test_full_training_of_4_bits_is_refused() -> None:
    with pytest.raises(HaganeError, match=r"weights of 4 bits cannot be trained"):
        spec_with("nf4", training={"method": "full"})
    config = {**LLAMA_8B, "quantization_config": QUANTIZED}
    with pytest.raises(ModelError, match=r"training.method: found full, allowed lora"):
        choose_quantization(
            spec_with("auto", training={"method": "full"}), config, architecture_of(config)
        )


def test_zero_3_gathers_and_offloads_4_bits_as_they_are() -> None:
    """Of 8 billion parameters 7 are in 4 bits: 3.6 GB, beside 2.1 GB of embedding and head."""
    zero = {"zero": {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"}}
    plan = plan_of("nf4", LLAMA_8B, "a100-80gb", **zero)
    quantized, others = plan.model.num_quantized, plan.model.num_parameters
    whole = NF4_BYTES * quantized + 2 * (others + plan.num_trainable - quantized)
    live = 2 * (MAX_LIVE + plan.model.largest_layer_parameters)
    assert term(plan, "gathered layers") == pytest.approx(min(whole, live), rel=1e-6)
    (held,) = (each for each in plan.memory.host if each.name == "weights")
    assert whole <= held.num_bytes < 2 * whole  # page-locked: rounded up
    assert "in 4 bits" in held.formula


def test_a_small_base_in_4_bits_is_gathered_in_fewer_bytes() -> None:
    config = {**LLAMA_8B, "num_hidden_layers": 2, "vocab_size": 32000}
    zero = {"zero": {"stage": 3}}
    whole, quantized = (plan_of(kind, config, "a100-80gb", **zero) for kind in ("none", "nf4"))
    saved = term(whole, "gathered layers") - term(quantized, "gathered layers")
    assert saved == pytest.approx((2 - NF4_BYTES) * quantized.model.num_quantized, rel=1e-6)


def test_4_bits_are_sent_as_they_are() -> None:
    """Gathered twice a pass: the estimate of communication is smaller by just that share."""
    zero = {"zero": {"stage": 3}, "lora": {"rank": 1}}
    whole, quantized = (plan_of(kind, LLAMA_8B, "a100-80gb", **zero) for kind in ("none", "nf4"))
    assert whole.time is not None
    assert quantized.time is not None
    total, num_quantized = whole.model.num_parameters, quantized.model.num_quantized
    share = (NF4_BYTES * num_quantized + 2 * (total - num_quantized)) / (2 * total)
    sent = [each.time.parts["communication"] for each in (quantized, whole) if each.time]
    assert sent[0] / sent[1] == pytest.approx(share, rel=0.01)
