"""The plan's files -> those of a probe: the same settings, four steps, no checkpoint."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.shared.documents.plan import Plan
from components.shared.documents.probe_request import ProbeRequest
from components.shared.model.source import read_config
from components.train.step_probe.probe_size import (
    TIMED_STEPS,
    WARM_UP_STEPS,
    num_probe_rows,
    probe_grad_accum,
)

ROWS = "train.parquet"
COLUMNS = ["input_ids", "labels", "lengths"]


def write_probe_files(request: ProbeRequest, folder: Path, *, rows: Path | None) -> None:
    """`folder` has plan.json, deepspeed.json and training_args.json of the probe, lora.json where
    the plan has one, and train.parquet where `rows`, a parquet file of the dataset, is given."""
    plan = request.plan
    grad_accum = probe_grad_accum(plan)
    deepspeed = request.deepspeed | deepspeed_changes(plan, grad_accum)
    arguments = request.training_args | argument_changes(grad_accum)
    (folder / "plan.json").write_text(plan.model_dump_json())
    (folder / "deepspeed.json").write_text(json.dumps(deepspeed))
    (folder / "training_args.json").write_text(json.dumps(arguments))
    if plan.lora is not None:
        (folder / "lora.json").write_text(json.dumps(plan.lora.peft_config))
    if rows is not None:
        write_rows_of_dataset(rows, folder / ROWS, num_rows=num_probe_rows(plan))


def deepspeed_changes(plan: Plan, grad_accum: int) -> dict[str, Any]:
    steps = plan.steps
    return {
        "gradient_accumulation_steps": grad_accum,
        "train_batch_size": steps.micro_batch * grad_accum * steps.num_processes,
    }


def argument_changes(grad_accum: int) -> dict[str, Any]:
    return {
        "gradient_accumulation_steps": grad_accum,
        "max_steps": WARM_UP_STEPS + TIMED_STEPS,
        "num_train_epochs": 1,
        "warmup_steps": 0,
        "lr_scheduler_type": "constant",
        "lr_scheduler_kwargs": None,
        "save_strategy": "no",
    }


def write_rows_of_dataset(source: Path, target: Path, *, num_rows: int) -> None:
    """`num_rows` of the dataset's rows, evenly spaced; of a smaller dataset, rows more than
    once."""
    table = pq.read_table(source, columns=COLUMNS)
    numbers = [index * table.num_rows // num_rows for index in range(num_rows)]
    pq.write_table(table.take(numbers), target)


def write_random_rows(plan: Plan, model_folder: Path, target: Path) -> None:
    """Rows of the planned mean length, each one conversation, of token ids from the middle half of
    the vocabulary: special tokens stand at its ends."""
    steps = plan.steps
    length = round(steps.tokens_per_epoch / steps.num_rows)
    vocabulary = vocabulary_of(read_config(model_folder))
    draw = random.Random(0)  # noqa: S311 - no secret
    rows = []
    for _ in range(num_probe_rows(plan)):
        first, last = vocabulary // 4, max(vocabulary // 4, 3 * vocabulary // 4 - 1)
        tokens = [draw.randint(first, last) for _ in range(length)]
        rows.append({"input_ids": tokens, "labels": tokens, "lengths": [length]})
    pq.write_table(pa.Table.from_pylist(rows), target)


def vocabulary_of(config: dict[str, Any]) -> int:
    """Of the text part, where config.json has several."""
    text = config.get("text_config", config)
    return int(text.get("vocab_size") or config["vocab_size"])
