from dataclasses import replace
from typing import Any

import pytest

from components.render_config.choose.precision import choose_precision
from components.render_config.choose.rows import row_tokens_of
from components.render_config.planner import (
    NO_DATASET,
    DatasetFacts,
    Machine,
    check_spec,
    make_plan,
)
from components.shared.documents.prompts import probe_bytes
from components.shared.errors import HaganeError
from components.shared.spec.file import spec_from_parameter

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 400,
    "max_position_embeddings": 512,
}
DATASET = DatasetFacts(digest="d" * 64, num_rows=198, num_tokens=90_000, model_revision=None)


def spec_with(**fields: Any):
    """In a cluster, of nodes with 64 GiB, unless `hardware` says otherwise."""
    if fields.get("backend", "local") != "local":
        fields["hardware"] = {"host_memory_gib": 64} | fields.get("hardware", {})
    return spec_from_parameter(
        {
            "name": "t",
            "store": "s",
            "model": {"source": "m"},
            "data": {"train": "d", "row_tokens": 64},
            **fields,
        }
    )


def test_every_problem_of_a_spec_is_reported_at_once() -> None:
    spec = spec_with(
        data={"train": "d", "row_tokens": 1024},
        lora={"targets": ["qproj"]},
        training={"global_batch": 3},
        hardware={"processes_per_node": 2},
    )
    with pytest.raises(HaganeError) as caught:
        check_spec(spec, CONFIG, Machine())
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "lora.targets",
        "data.row_tokens",
        "training.global_batch",
    ]


@pytest.mark.parametrize(
    "here",
    [Machine(), Machine(flags=frozenset({"cuda", "amx_bf16"}), memory_bytes=2**28, num_cores=96)],
)
def test_a_plan_for_a_cluster_is_the_same_wherever_it_is_made(here: Machine) -> None:
    spec = spec_with(backend="pytorchjob", hardware={"host_memory_gib": 2}, cluster={"cpus": 4})
    plan = make_plan(spec, DATASET, CONFIG, machine=here)
    assert plan == make_plan(spec, DATASET, CONFIG, machine=Machine(num_cores=2))
    assert (plan.precision, plan.threads_per_process) == ("fp32", 4)
    assert "is not known; set bf16" in plan.reasons["precision"]


def test_a_run_in_a_cluster_of_which_nothing_is_said_is_refused() -> None:
    tree = {
        "name": "t",
        "store": "s",
        "backend": "pytorchjob",
        "model": {"source": "m"},
        "data": {"train": "d", "row_tokens": 64},
    }
    for hardware in ({}, {"num_nodes": 4}):
        with pytest.raises(HaganeError, match="hardware: says nothing of the cluster's nodes"):
            check_spec(
                spec_from_parameter(tree | {"hardware": hardware}),
                CONFIG,
                Machine(memory_bytes=2**40),
            )
    check_spec(spec_from_parameter(tree | {"hardware": {"gpu_memory_gib": 24}}), CONFIG, Machine())


def test_a_plan_says_why_for_each_number_a_person_used_to_work_out() -> None:
    plan = make_plan(
        spec_with(training={"epochs": 5, "global_batch": 1}), DATASET, CONFIG, machine=Machine()
    )
    assert plan.steps.save_steps == (198, 396, 594, 792, 990)
    assert (
        plan.reasons["steps.save_steps"] == "a checkpoint at the end of each epoch: every 198 steps"
    )
    assert set(plan.reasons) >= {
        "precision",
        "lora.target_modules",
        "steps.total_steps",
        "checkpoints.bytes_each",
        "num_trainable",
    }


def test_full_training_trains_every_parameter_and_has_no_lora() -> None:
    plan = make_plan(spec_with(training={"method": "full"}), DATASET, CONFIG, machine=Machine())
    assert plan.lora is None
    assert plan.num_trainable == plan.model.num_parameters


def test_lora_checkpoints_promise_sixteen_bytes_a_trainable_parameter() -> None:
    plan = make_plan(spec_with(training={"epochs": 2}), DATASET, CONFIG, machine=Machine())
    assert plan.checkpoints.bytes_each == pytest.approx(
        16 * plan.num_trainable + probe_bytes(CONFIG["vocab_size"]), abs=50_000
    )
    assert plan.checkpoints.bytes_total == 2 * plan.checkpoints.bytes_each


@pytest.mark.parametrize(
    ("asked", "flags", "chosen"),
    [
        ("auto", {"avx2"}, "fp32"),
        ("auto", {"avx512f", "avx512_bf16"}, "bf16"),
        ("auto", {"asimd", "bf16"}, "bf16"),
        ("auto", {"avx2", "cuda"}, "bf16"),
        ("bf16", {"avx2"}, "bf16"),
        ("fp32", {"cuda"}, "fp32"),
    ],
)
def test_precision_is_what_the_machine_computes_fast_unless_asked(
    asked: Any, flags: set[str], chosen: str
) -> None:
    assert choose_precision(asked, frozenset(flags)).value == chosen


GPT_OSS = CONFIG | {
    "model_type": "gpt_oss",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 2,
}
APART = replace(
    DATASET, num_rows=200, num_tokens=8_000, num_held_out=10, packed=False, longest_conversation=48
)


def test_one_conversation_a_row_is_counted_in_steps_memory_and_time() -> None:
    spec = spec_with(
        training={"epochs": 1, "global_batch": 8, "micro_batch": 1, "attention": "eager"}
    )
    full = make_plan(
        spec, replace(DATASET, num_rows=200, num_tokens=12_800), CONFIG, machine=Machine()
    )
    plan = make_plan(spec, APART, GPT_OSS, machine=Machine())
    assert (plan.packed, plan.steps.steps_per_epoch, plan.steps.tokens_per_epoch) == (
        False,
        25,
        8_000,
    )
    assert plan.reasons["packed"].startswith(
        "in a gpt_oss model conversations of a row would see each other"
    )
    assert plan.reasons["steps.steps_per_epoch"].startswith(
        "200 rows of one conversation in batches of 8"
    )
    assert any(
        caution.startswith("data.packing: each row holds one conversation")
        for caution in plan.cautions
    )
    assert full.packed
    assert not any("data.packing" in caution for caution in full.cautions)
    assert any("1 x 48 tokens" in term.formula for term in (*plan.memory.host, *plan.memory.gpu))


def test_rows_of_the_other_kind_than_the_model_needs_are_refused() -> None:
    spec = spec_with(training={"attention": "eager"})
    with pytest.raises(
        HaganeError,
        match=r"dataset: found packed rows, allowed data.packing false, since in a gpt_oss model",
    ):
        make_plan(spec, replace(APART, packed=True), GPT_OSS, machine=Machine())


@pytest.mark.parametrize(
    ("model_type", "why"),
    [("bert", "see the future"), ("trocr", "is not that of the next token"), ("t5", "causal")],
)
def test_a_type_that_cannot_be_trained_right_is_refused_in_one_line(
    model_type: str, why: str
) -> None:
    with pytest.raises(HaganeError, match=why) as caught:
        check_spec(spec_with(), CONFIG | {"model_type": model_type}, Machine())
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["model.source"]


def test_a_merged_export_of_experts_is_refused_before_training() -> None:
    spec = spec_with(export={"merge": True}, lora={"dropout": 0.1})
    with pytest.raises(HaganeError) as caught:
        check_spec(spec, GPT_OSS, Machine())
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "lora.dropout",
        "export.merge",
    ]
    assert "set export.merge: false, or lora.targets: attention" in caught.value.problems[1]
    check_spec(spec_with(export={"merge": True}, lora={"targets": "attention"}), GPT_OSS, Machine())
    check_spec(spec_with(export={"merge": True}, training={"method": "full"}), GPT_OSS, Machine())


def test_nobody_is_asked_to_merge_an_adapter_of_experts() -> None:
    plan = make_plan(spec_with(), replace(APART, packed=True), GPT_OSS, machine=Machine())
    (serving,) = (caution for caution in plan.cautions if caution.startswith("serving:"))
    assert "compare answers" in serving
    assert "merge it" not in serving


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"global_batch": 16, "epochs": 3}, "training: 39 optimizer steps, fewer than 50"),
        ({"global_batch": 16, "epochs": 4}, None),
        ({"global_batch": 16, "epochs": 3, "max_steps": 10}, None),
    ],
)
def test_few_optimizer_steps_are_warned_of_with_what_makes_more(
    training: dict[str, Any], said: str | None
) -> None:
    cautions = make_plan(spec_with(training=training), DATASET, CONFIG, machine=Machine()).cautions
    found = [caution for caution in cautions if "optimizer steps" in caution]
    assert len(found) == (said is not None)
    if said is not None:
        assert found[0].startswith(said)
        assert (
            "more training.epochs (now 3), or a smaller training.global_batch (now 16)" in found[0]
        )


def test_rows_that_are_few_because_they_are_long_are_named() -> None:
    few = replace(DATASET, num_rows=20)
    *_, caution = make_plan(spec_with(), few, CONFIG, machine=Machine()).cautions
    assert "shorter rows, as 64 tokens each make only 20 (data.row_tokens)" in caution


def test_automatic_rows_are_the_datasets_and_a_guess_without_it() -> None:
    spec = spec_with(data={"train": "d", "row_tokens": "auto"})
    assert row_tokens_of(spec, NO_DATASET, {"max_position_embeddings": 512}) == 512
    assert row_tokens_of(spec, NO_DATASET, {}) == 1024
    assert row_tokens_of(spec, replace(NO_DATASET, row_tokens=4096), {}) == 4096


def test_a_batch_larger_than_the_data_is_warned_of() -> None:
    dataset = DatasetFacts(digest="d" * 64, num_rows=20, num_tokens=900, model_revision=None)
    plan = make_plan(spec_with(training={"global_batch": 64}), dataset, CONFIG, machine=Machine())
    line = next(
        line
        for line in plan.cautions
        if line.startswith("training.global_batch: 64 is more than the 20 rows")
    )
    assert line.endswith("set training.global_batch to 2 or less")


@pytest.mark.parametrize(
    ("micro", "num_rows", "fix"),
    [
        ("auto", 200, "set training.global_batch to 24 or a smaller multiple of 8"),
        ("auto", 10, "set training.global_batch to 8"),
        (2, 20, "set training.global_batch to 16"),
        (2, 10, "a smaller training.micro_batch, and global_batch with it"),
    ],
)
def test_the_smaller_batch_that_is_named_is_one_that_the_spec_takes(
    micro: int | str, num_rows: int, fix: str
) -> None:
    dataset = replace(DATASET, num_rows=num_rows)
    training = {"global_batch": 256, "micro_batch": micro}
    spec = spec_with(training=training, hardware={"processes_per_node": 8})
    plan = make_plan(spec, dataset, CONFIG, machine=Machine())
    (line,) = (line for line in plan.cautions if "rows there are" in line)
    assert line.endswith(fix)


def test_one_step_is_written_as_one() -> None:
    spec = spec_with(training={"global_batch": 64, "epochs": 1})
    plan = make_plan(spec, replace(DATASET, num_rows=20), CONFIG, machine=Machine())
    assert "1 step" in plan.verdict
    assert "1 steps" not in plan.verdict
    assert any("training: 1 optimizer step, fewer" in line for line in plan.cautions)
    assert plan.reasons["steps.total_steps"] == "1 step x 1 epoch"


def test_packed_rows_are_explained_in_conversations() -> None:
    """198 conversations, batch 1, 5 epochs: what a reader expects of save_steps, beside what
    packing makes of it."""
    dataset = replace(DATASET, num_rows=21, num_conversations=198, packed=True)
    spec = spec_with(training={"epochs": 5, "global_batch": 1})
    plan = make_plan(spec, dataset, CONFIG, machine=Machine())
    assert plan.reasons["steps.num_rows"] == (
        "198 conversations in 21 packed rows: 105 steps, a checkpoint every 21; "
        "with one conversation per row (data.packing: false) 990 steps, a checkpoint every 198"
    )


def test_the_learning_rate_of_the_method_is_in_the_plan_with_its_reason() -> None:
    plan = make_plan(spec_with(training={"method": "full"}), DATASET, CONFIG, machine=Machine())
    assert plan.learning_rate == 2e-5
    assert "Stanford Alpaca" in plan.reasons["learning_rate"]
    asked = make_plan(
        spec_with(training={"method": "full", "lr_peak": 2e-5}), DATASET, CONFIG, machine=Machine()
    )
    assert (
        asked.training_digest
        != make_plan(spec_with(), DATASET, CONFIG, machine=Machine()).training_digest
    )
    assert asked.training_digest == plan.training_digest


def test_benchmarks_are_no_part_of_the_training() -> None:
    measured = spec_with(evaluation={"lm_eval": {"tasks": ["arc_easy"]}})
    plans = [
        make_plan(each, DATASET, CONFIG, machine=Machine()) for each in (measured, spec_with())
    ]
    assert plans[0].training_digest == plans[1].training_digest
