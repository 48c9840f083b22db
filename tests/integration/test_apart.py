"""Rows in which conversations see each other, as no plan makes them, given to training all the same."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.shared.store.layout import DATASET
from components.shared.store.manifest import manifest_key, publish_folder, require_manifest
from components.shared.store.storage import LocalStore
from tests.support.command_line import environment, hagane, write_spec
from tests.support.tiny_models import make_model, write_conversations


def pack_in_pairs(path: Path) -> None:
    """Two rows of the file each become one."""
    rows = pq.read_table(path).to_pylist()
    pairs = [{name: one[name] + two[name] for name in one} for one, two in zip(rows[::2], rows[1::2], strict=True)]
    pq.write_table(pa.Table.from_pylist(pairs), path)


def test_training_stops_before_its_first_step_where_conversations_of_a_row_see_each_other(tmp_path: Path) -> None:
    spec = {
        "name": "tiny",
        "store": str(tmp_path / "store"),
        "model": {"source": str(make_model(tmp_path / "model", architecture="bloom"))},
        "data": {
            "train": str(write_conversations(tmp_path / "train.jsonl", 12, seed=1)),
            "held_out": str(write_conversations(tmp_path / "held_out.jsonl", 4, seed=2)),
            "row_tokens": 256,
        },
        "training": {"precision": "fp32", "epochs": 1, "global_batch": 2},
        "lora": {"targets": "attention"},
        "zero": {"stage": 3},
        "hardware": {"processes_per_node": 2},
    }
    file, run = write_spec(tmp_path / "spec.yaml", spec), tmp_path / "store" / "tiny"
    prepare = [sys.executable, "-W", "ignore", "-m", "components.prepare_dataset", "--spec", str(file)]
    subprocess.run(prepare, env=environment(tmp_path / "work"), check=True)
    dataset = require_manifest(LocalStore(run), DATASET)
    local = shutil.copytree(run / DATASET, tmp_path / "packed", ignore=shutil.ignore_patterns("manifest.json"))
    for name in ("train.parquet", "held_out.parquet"):
        pack_in_pairs(local / name)
    facts = dataset.facts | {"num_rows": 6, "held_out_rows": 2}
    LocalStore(run).delete(manifest_key(DATASET))
    publish_folder(LocalStore(run), DATASET, local, made_by=dataset.made_by, inputs=dataset.inputs, facts=facts)
    done = hagane("run", file, work=tmp_path / "work")
    [line] = {line for line in done.errors if "see each other" in line}
    assert "training: model.source, a bloom model: found conversations of a row that see each other" in line
    assert "Fix: set data.packing: false" in line
    assert done.exit_code != 0
    assert not (run / "checkpoints").exists()
