"""Rendered files are accepted by the libraries that read them, with every value resolved."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.config import DeepSpeedConfig
from peft import LoraConfig
from transformers import TrainingArguments
from transformers.optimization import get_scheduler

from components.render_config.page.page import render_page, values
from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.render_config.render.files import (
    LORA,
    deepspeed_json,
    lora_json,
    rendered_files,
    training_args_json,
)
from components.shared.documents.plan import Plan
from components.shared.spec.file import spec_from_parameter
from components.shared.spec.run_spec import RunSpec
from components.shared.tree import leaves

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 400,
    "max_position_embeddings": 512,
}


DATASET = DatasetFacts(digest="d" * 64, num_rows=40, num_tokens=900, model_revision=None)


def planned(**fields: Any) -> tuple[RunSpec, Plan]:
    spec = spec_from_parameter(
        {
            "name": "t",
            "store": "s",
            "model": {"source": "m"},
            "data": {"train": "d", "row_tokens": 64},
            **fields,
        }
    )
    return spec, make_plan(spec, DATASET, CONFIG, machine=Machine())


@pytest.mark.parametrize(
    "zero",
    [
        {},
        {"stage": 1},
        {"stage": 2, "offload_optimizer": "cpu"},
        {"stage": 3},
        {"offload_parameters": "cpu"},
    ],
)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_deepspeed_accepts_its_config_and_nothing_is_left_auto(
    zero: dict[str, Any], precision: str
) -> None:
    spec, plan = planned(
        zero=zero,
        training={"precision": precision, "micro_batch": 2},
        hardware={"processes_per_node": 2},
    )
    rendered = deepspeed_json(spec, plan, hidden_size=64)
    assert "auto" not in json.dumps(rendered)
    parsed = DeepSpeedConfig(
        {**rendered, "train_batch_size": 4, "gradient_accumulation_steps": 2}
    )  # one process reads it here
    assert parsed.zero_config.stage == plan.zero.stage
    assert (parsed.zero_config.offload_param is not None) == plan.zero.offload_parameters
    assert (parsed.zero_config.offload_optimizer is not None) == plan.zero.offload_optimizer


def test_batch_sizes_multiply_to_the_global_batch() -> None:
    spec, plan = planned(
        training={"global_batch": 16, "micro_batch": 2}, hardware={"processes_per_node": 2}
    )
    rendered = deepspeed_json(spec, plan, hidden_size=64)
    assert (
        rendered["train_batch_size"],
        rendered["train_micro_batch_size_per_gpu"],
        rendered["gradient_accumulation_steps"],
    ) == (16, 2, 4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_training_arguments_accept_their_file(tmp_path: Path) -> None:
    spec, plan = planned(
        training={
            "epochs": 4,
            "lr_schedule": "constant_with_warmup",
            "warmup_share": 0.1,
            "micro_batch": 1,
        }
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, **training_args_json(spec, plan)
    )
    assert (
        arguments.num_train_epochs,
        arguments.warmup_steps,
        arguments.per_device_train_batch_size,
    ) == (4, 2, 1)
    assert arguments.save_strategy == "epoch"


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("name", "ends_at"),
    [("cosine_with_min_lr", 0.25), ("warmup_stable_decay", 0.25)],
)
def test_schedules_with_settings_of_their_own_end_where_the_spec_says(
    name: str, ends_at: float, tmp_path: Path
) -> None:
    training = {
        "epochs": 4,
        "lr_schedule": name,
        "lr_min_share": ends_at,
        "lr_decay_share": 0.5,
        "warmup_share": 0.1,
        "lr_peak": 1.0,
    }
    spec, plan = planned(training=training)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, **training_args_json(spec, plan)
    )
    total, settings = plan.steps.total_steps, arguments.lr_scheduler_kwargs
    assert isinstance(settings, dict)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler: Any = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=plan.steps.warmup_steps,
        num_training_steps=total,
        scheduler_specific_kwargs=settings,
    )
    rates = [scheduler.lr_lambdas[0](step) for step in range(total + 1)]
    assert max(rates) == 1.0
    assert rates[total] == pytest.approx(ends_at)
    if name == "warmup_stable_decay":
        assert rates[plan.steps.warmup_steps : total // 2] == [1.0] * (
            total // 2 - plan.steps.warmup_steps
        )


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_noise_on_embeddings_is_there_only_when_asked_for(tmp_path: Path) -> None:
    assert "neftune_noise_alpha" not in training_args_json(*planned())
    spec, plan = planned(training={"neftune_alpha": 5})
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, **training_args_json(spec, plan)
    )
    assert arguments.neftune_noise_alpha == 5


def test_rslora_scales_by_the_root_of_the_rank() -> None:
    _, plan = planned(lora={"rank": 16, "alpha": 8, "rslora": True})
    assert plan.lora is not None
    assert plan.lora.scale == 2.0
    assert LoraConfig(**lora_json(plan.lora)).use_rslora


def test_peft_accepts_the_lora_file() -> None:
    _, plan = planned(lora={"rank": 8, "alpha": 16, "targets": ["v_proj", "q_proj"]})
    assert plan.lora is not None
    config = LoraConfig(**lora_json(plan.lora))
    assert (config.r, config.lora_alpha, config.target_modules) == (8, 16.0, {"q_proj", "v_proj"})


@pytest.mark.parametrize(
    ("method", "zero"),
    [
        ("lora", {"offload_parameters": "cpu"}),
        ("lora", {"stage": 0}),
        ("full", {"stage": 2, "offload_optimizer": "cpu"}),
    ],
)
@pytest.mark.parametrize("lr_schedule", ["cosine", "cosine_with_min_lr", "warmup_stable_decay"])
def test_every_value_of_every_file_has_its_reason_in_the_plan(
    method: str, zero: dict[str, Any], lr_schedule: str
) -> None:
    training = {"method": method, "lr_schedule": lr_schedule, "neftune_alpha": 5}
    spec, plan = planned(training=training, zero=zero, lora={"rslora": method == "lora"})
    rendered = rendered_files(spec, plan, hidden_size=64)
    fields = {
        f"files.{name}.{field}"
        for name, content in rendered.items()
        for field, _ in leaves(content)
    }
    assert len(fields) > 25
    assert {key for key in plan.reasons if key.startswith("files.")} == fields
    page = render_page(plan, rendered)
    assert all(f"<code>{field.split('.', 2)[2]}</code>" in page for field in fields)
    assert [name for name, _, why in values(plan) if not why] == []


def _file_reasons(plan: Plan) -> list[str]:
    return [why for key, why in plan.reasons.items() if key.startswith("files.")]


def test_a_reason_that_is_a_name_names_a_field_of_spec_or_plan() -> None:
    spec, plan = planned(zero={"stage": 3}, training={"lr_schedule": "warmup_stable_decay"})
    known = {**dict(leaves(plan.model_dump())), **dict(leaves(spec.model_dump())), "zero": None}
    named = {
        why.partition(":")[0].partition(";")[0] for why in (*LORA.values(), *_file_reasons(plan))
    }
    assert {
        name for name in named if re.fullmatch(r"[a-z_]+\.[a-z_]+|zero|precision", name)
    } <= set(known)


def test_a_service_gets_what_is_logged_only_where_the_spec_names_one() -> None:
    spec, plan = planned()
    assert training_args_json(spec, plan)["report_to"] == []
    spec, plan = planned(training={"report_to": "tensorboard"})
    made = training_args_json(spec, plan)
    assert (made["report_to"], made["run_name"]) == (["tensorboard"], spec.name)


def test_dora_is_a_flag_of_peft_and_counts_a_length_for_each_output() -> None:
    _, plain = planned()
    _, plan = planned(lora={"dora": True})
    assert plan.lora is not None
    assert LoraConfig(**lora_json(plan.lora)).use_dora
    assert plan.num_trainable > plain.num_trainable
    assert any(caution.startswith("lora.dora: ") for caution in plan.cautions)
