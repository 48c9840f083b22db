"""200 random plans: DeepSpeed's own config class takes each deepspeed.json, TrainingArguments its file, and each LoraConfig attaches."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.config import DeepSpeedConfig
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments

from components.render_config.cost.gpus import GPUS
from components.render_config.model.architectures import architecture_of
from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.render_config.render.files import deepspeed_json, lora_json, training_args_json
from components.shared.spec.file import spec_from_parameter
from components.train.model.walk import build

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 500}
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "llama", **SHAPE, "num_key_value_heads": 2},
    {"model_type": "gpt_neox", **SHAPE},
    {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 500, "n_positions": 1024},
    {"model_type": "qwen3", **SHAPE, "num_key_value_heads": 2},
    {"model_type": "gemma2", **SHAPE, "num_key_value_heads": 2, "head_dim": 16},
    {"model_type": "mixtral", **SHAPE, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
]
ZERO: list[Any] = [
    "auto", {"stage": 0}, {"stage": 1}, {"stage": 2}, {"stage": 3}, {"stage": 2, "offload_optimizer": "cpu"},
    {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "none"}, {"offload_parameters": "cpu"},
]  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_the_libraries_take_a_random_plans_files(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    config, nodes, processes = draw.choice(CONFIGS), draw.choice((1, 2)), draw.choice((1, 2, 8))
    gpu = draw.choice((None, *GPUS))
    has_bf16 = gpu is None or GPUS[gpu].bf16
    tree = {
        "name": "t",
        "store": "s",
        "model": {"source": "m"},
        "data": {"train": "d", "row_tokens": draw.choice((64, 512))},
        "training": {
            "method": draw.choice(("lora", "full")),
            "global_batch": nodes * processes * draw.randint(1, 8),
            "max_steps": draw.choice((None, 7)),
            "drop_last": draw.random() < 0.3,
            "gradient_checkpointing": draw.random() < 0.5,
            "precision": draw.choice(("auto", "bf16", "fp32") if has_bf16 else ("auto", "fp32")),
        },
        "lora": {"rank": draw.choice((1, 8, 64)), "targets": draw.choice(("auto", "attention", "mlp", "all"))},
        "zero": draw.choice(ZERO),
        "hardware": {"num_nodes": nodes, "processes_per_node": processes, "gpu": gpu, "host_memory_gib": 500},
    }
    spec = spec_from_parameter(tree)
    plan = make_plan(spec, DatasetFacts(digest="", num_rows=500, num_tokens=9_000, model_revision=None), config, machine=Machine())
    rendered = deepspeed_json(spec, plan, hidden_size=64)
    assert "auto" not in json.dumps(rendered)
    alone = {"train_batch_size": plan.steps.micro_batch * plan.steps.grad_accum}  # one process reads it here
    parsed = DeepSpeedConfig({**rendered, **alone})
    assert (parsed.zero_config.stage, parsed.gradient_accumulation_steps) == (plan.zero.stage, plan.steps.grad_accum)
    arguments = {key: value for key, value in training_args_json(spec, plan).items() if key not in ("bf16", "fp16")}  # no GPU here
    assert TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **arguments).warmup_steps == plan.steps.warmup_steps
    if plan.lora is not None:
        with torch.device("meta"):
            model: Any = get_peft_model(build(config), LoraConfig(**lora_json(plan.lora)))
        assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == plan.num_trainable
    assert architecture_of(config).num_parameters == plan.model.num_parameters
