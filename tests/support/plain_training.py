"""The reference: what training means, in plain torch. No Trainer, no DeepSpeed, no packing: each
conversation is a forward pass alone.

It reads what a run's first two steps wrote, dataset/ and plan/, and repeats the third in fp32.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, cos, pi
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed

from components.shared.documents.plan import Plan, StepPlan
from components.shared.spec.training import TrainingSpec

Row = dict[str, list[int]]


@dataclass(frozen=True)
class PlainHistory:
    steps: list[dict[str, float]]
    """loss, lr, grad_norm and trained_tokens of each step."""
    held_out: list[float]
    """Before training and after each epoch."""


def train_plainly(run: Path, base: Path, training: TrainingSpec) -> PlainHistory:
    """The losses that training of this run must have."""
    plan = Plan.model_validate_json((run / "plan/plan.json").read_bytes())
    planned = plan.steps
    model = load(run, base, training)
    rows, held_out = (
        pq.read_table(run / f"dataset/{name}.parquet").to_pylist() for name in ("train", "held_out")
    )
    optimizer = adamw(model, training, plan.learning_rate)
    steps, losses = list[dict[str, float]](), [mean_loss(model, held_out)]
    for epoch in range(ceil(planned.total_steps / planned.steps_per_epoch)):
        for batch in batches_of(epoch, rows, planned, training):
            if len(steps) == planned.total_steps:
                break
            lr = plan.learning_rate * share_of_peak(len(steps), planned, training)
            steps.append(step(model, optimizer, batch, lr, training))
        losses.append(mean_loss(model, held_out))
    return PlainHistory(steps, losses)


def load(run: Path, base: Path, training: TrainingSpec) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    set_seed(training.seed)
    lora = run / "plan/lora.json"
    return (
        get_peft_model(model, LoraConfig(**json.loads(lora.read_bytes())))
        if lora.exists()
        else model
    )


def adamw(model: Any, training: TrainingSpec, learning_rate: float) -> torch.optim.AdamW:
    """Two groups: matrices decay, vectors and what is named a bias do not."""
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    matrices = [
        weight
        for name, weight in trained
        if weight.dim() > 1 and "bias" not in name and "A_log" not in name
    ]
    rest = [weight for _, weight in trained if not any(weight is each for each in matrices)]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": training.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ],
        lr=learning_rate,
    )


def batches_of(
    epoch: int, rows: list[Row], planned: StepPlan, training: TrainingSpec
) -> Iterator[list[Row]]:
    """The rows of each optimizer step: shuffled anew for each epoch, dealt out so that all
    processes have equally many."""
    order = torch.randperm(
        len(rows), generator=torch.Generator().manual_seed(training.seed + epoch)
    ).tolist()
    at_once = planned.micro_batch * planned.num_processes
    if training.drop_last:
        order = order[: len(order) // at_once * at_once]
    elif planned.num_processes > 1:
        order += order[: -len(order) % at_once]
    for start in range(0, len(order), planned.global_batch):
        yield [rows[index] for index in order[start : start + planned.global_batch]]


def share_of_peak(num_done: int, planned: StepPlan, training: TrainingSpec) -> float:
    """Of the learning rate, for the step after this many."""
    warmup, total = planned.warmup_steps, planned.total_steps
    if num_done < warmup:
        return (num_done + 1) / (warmup + 1)
    progress = (num_done - warmup) / (total - warmup)
    least = training.lr_min_share
    if training.lr_schedule == "warmup_stable_decay":
        decay = ceil(training.lr_decay_share * total)
        return least + (1 - least) * falling(max(0, num_done - (total - decay)) / decay)
    if training.lr_schedule == "cosine_with_min_lr":
        return least + (1 - least) * falling(progress)
    return {"cosine": falling(progress), "linear": 1 - progress, "constant_with_warmup": 1.0}[
        training.lr_schedule
    ]


def falling(progress: float) -> float:
    """Half a wave, from 1 to 0."""
    return (1 + cos(pi * progress)) / 2


def step(
    model: Any, optimizer: torch.optim.AdamW, rows: list[Row], lr: float, training: TrainingSpec
) -> dict[str, float]:
    """One update by the mean loss over all trained tokens of the rows."""
    loss_sum, num_tokens = loss_of(model, rows, training.label_smoothing)
    (loss_sum / num_tokens).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad()
    return {
        "loss": float(loss_sum.detach()) / num_tokens,
        "lr": lr,
        "grad_norm": float(norm),
        "trained_tokens": num_tokens,
    }


@torch.no_grad()
def mean_loss(model: Any, rows: list[Row]) -> float:
    loss_sum, num_tokens = loss_of(model, rows)
    return float(loss_sum) / num_tokens


def loss_of(model: Any, rows: list[Row], label_smoothing: float = 0.0) -> tuple[torch.Tensor, int]:
    """Summed over the trained tokens of all conversations, each seen alone."""
    loss_sum, num_tokens = torch.zeros(()), 0
    for tokens, labels in (conversation for row in rows for conversation in conversations_of(row)):
        logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1]
        loss_sum = loss_sum + torch.nn.functional.cross_entropy(
            logits, labels[1:], ignore_index=-100, reduction="sum", label_smoothing=label_smoothing
        )
        num_tokens += int((labels[1:] != -100).sum())
    return loss_sum, num_tokens


def conversations_of(row: Row) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and labels of each conversation of a packed row."""
    ends = torch.tensor(row["lengths"]).cumsum(0).tolist()
    for end, length in zip(ends, row["lengths"], strict=True):
        yield (
            torch.tensor(row["input_ids"][end - length : end]),
            torch.tensor(row["labels"][end - length : end]),
        )
