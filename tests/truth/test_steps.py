"""60 random specs, planned, then trained for real on a tiny model: steps, saves and tokens are the plan's.

transformers' Trainer trains, by the plan's own training_args.json, on rows of equal length. Of several processes, the first one is
trained, on the batches that accelerate's own sampler deals to it; each of the others gets as many.
"""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.render_config.render.files import training_args_json
from components.shared.documents.plan import Plan
from components.shared.spec.file import spec_from_parameter
from components.shared.spec.run_spec import RunSpec

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROW_TOKENS = 16
SHAPE: dict[str, Any] = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens_T = torch.full((ROW_TOKENS,), index % 32)
        return {"input_ids": tokens_T, "labels": tokens_T}


class Counts(TrainerCallback):
    """What training did: optimizer steps, steps after which it saved."""

    def __init__(self) -> None:
        self.saves: list[int] = []
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps += 1

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saves.append(state.global_step)


class OneOfMany(Trainer):
    """The first process of several, on the batches that accelerate deals to it."""

    num_processes = 1
    rows_seen = 0

    def get_train_dataloader(self) -> DataLoader[Any]:
        rows: Any = self.train_dataset
        batches = BatchSampler(SequentialSampler(rows), self.args.per_device_train_batch_size, drop_last=self.args.dataloader_drop_last)
        shard = BatchSamplerShard(batches, self.num_processes, 0) if self.num_processes > 1 else batches
        return DataLoader(rows, batch_sampler=shard, collate_fn=self._collate)

    def _collate(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels")}

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        self.rows_seen += inputs["input_ids"].shape[0]
        return super().compute_loss(model, inputs, *args, **more)

    def _save_checkpoint(self, *_: Any, **__: Any) -> None:
        """Nothing is written: on_save is what counts."""


def random_spec(seed: int) -> tuple[RunSpec, int]:
    """A spec whose batches divide, and a number of rows that its plan does not refuse."""
    draw = random.Random(seed)
    micro_batch, grad_accum, processes = draw.randint(1, 4), draw.randint(1, 4), draw.choice((1, 1, 2, 3))
    num_rows = draw.randint(micro_batch * processes, 40)
    training = {
        "method": draw.choice(("lora", "full")),
        "epochs": draw.randint(1, 4),
        "micro_batch": micro_batch,
        "global_batch": micro_batch * grad_accum * processes,
        "drop_last": draw.random() < 0.3,
        "max_steps": draw.choice((None, None, draw.randint(1, 12))),
        "warmup_share": draw.choice((0.0, 0.05, 0.3)),
        "lr_schedule": draw.choice(("cosine", "linear", "constant_with_warmup")),
        "gradient_checkpointing": draw.random() < 0.3,
        "precision": "fp32",
        "seed": seed,
    }
    tree = {"name": "t", "store": "s", "model": {"source": "m"}, "data": {"train": "d", "row_tokens": ROW_TOKENS}, "training": training}
    return spec_from_parameter({**tree, "hardware": {"processes_per_node": processes}}), num_rows


def planned(spec: RunSpec, num_rows: int) -> Plan:
    facts = DatasetFacts(digest="", num_rows=num_rows, num_tokens=num_rows * ROW_TOKENS, model_revision=None)
    return make_plan(spec, facts, {"model_type": "llama", **SHAPE, "max_position_embeddings": 64}, machine=Machine())


@pytest.mark.parametrize("seed", range(60))
def test_training_makes_the_steps_saves_and_tokens_of_its_plan(seed: int, tmp_path: Path) -> None:
    spec, num_rows = random_spec(seed)
    plan = planned(spec, num_rows)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **training_args_json(spec, plan))
    counts = Counts()
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, max_position_embeddings=64))
    trainer = OneOfMany(model=model, args=arguments, train_dataset=Rows(num_rows), callbacks=[counts])
    trainer.num_processes = plan.steps.num_processes
    trainer.train()
    assert trainer.state.max_steps == counts.steps == plan.steps.total_steps
    assert tuple(counts.saves) == plan.steps.save_steps
    assert trainer.rows_seen * plan.steps.num_processes * ROW_TOKENS == plan.steps.tokens_total
    assert arguments.warmup_steps == math.ceil(spec.training.warmup_share * plan.steps.total_steps)
