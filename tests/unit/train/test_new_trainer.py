"""The trainer of a run and of a probe."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import TrainingArguments

from components.shared.spec.file import load_spec
from components.train.__main__ import new_trainer
from components.train.loop.rows import PackedRows
from tests.support.example_plans import ROOT, plan_example
from tests.support.small_models import small_model


def test_it_trains_with_the_plans_plus_ratio_and_the_specs_label_smoothing(tmp_path: Path) -> None:
    spec = load_spec(ROOT / "specs/plans/elyza-7b-lora-1x24gb.yaml", ["lora.plus_ratio=8"])
    plan = plan_example(spec).model_copy(update={"loss_chunk_tokens": 7})
    rows = [{"input_ids": [1, 2], "labels": [1, 2], "lengths": [2]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    trainer = new_trainer(
        small_model("llama"),
        TrainingArguments(output_dir=str(tmp_path), use_cpu=True),
        PackedRows(tmp_path / "train.parquet"),
        plan,
        label_smoothing=0.1,
    )
    assert trainer._plus_ratio == 8
    assert trainer.own.output_layer is not None
    assert trainer.own.output_layer._label_smoothing == 0.1
