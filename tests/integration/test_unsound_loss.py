"""A base model whose embedding of one token is no number, and one conversation that has the token: training must not go on with it."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.support.command_line import hagane, write_spec
from tests.support.tiny_models import make_model, write_conversations

RARE = "~"


def make_model_with_a_bad_token(folder: Path) -> tuple[Path, int]:
    """The model's folder, and the token of RARE, whose embedding is NaN."""
    base = make_model(folder)
    token = Tokenizer.from_file(str(base / "tokenizer.json")).encode(RARE, add_special_tokens=False).ids[0]
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][token] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    return base, token


def test_a_loss_that_is_no_number_ends_the_run_with_its_step_rows_and_last_good_checkpoint(tmp_path: Path) -> None:
    base, token = make_model_with_a_bad_token(tmp_path / "model")
    train = write_conversations(tmp_path / "train.jsonl", 40, seed=1)
    turns = [{"role": "user", "content": f"{RARE}?"}, {"role": "assistant", "content": "12."}]
    train.write_text(train.read_text() + json.dumps({"messages": turns}) + "\n")
    spec = {
        "name": "tiny",
        "store": str(tmp_path / "store"),
        "model": {"source": str(base)},
        "data": {
            "train": str(train),
            "held_out": str(write_conversations(tmp_path / "held_out.jsonl", 4, seed=2)),
            "row_tokens": 128,
        },
        "training": {"epochs": 1, "global_batch": 2, "micro_batch": 1, "seed": 2},
        "zero": {"stage": 0},
        "hardware": {"processes_per_node": 2},
        "checkpoints": {"every_minutes": 0.0001},
    }
    done = hagane("run", write_spec(tmp_path / "spec.yaml", spec), work=tmp_path / "work")
    run = tmp_path / "store" / "tiny"
    rows = pq.read_table(run / "dataset/train.parquet")["input_ids"].to_pylist()
    bad = [index for index, row in enumerate(rows) if token in row]
    assert done.exit_code == 1
    [line] = [line for line in done.errors if "is not finite" in line]
    assert f"in rows {', '.join(map(str, bad))} of dataset/train.parquet" in line
    step = int(line.split("the loss of step ")[1].split()[0])
    assert step > 1
    assert f"the last good checkpoint is step {step - 1}." in line
    assert "Fix: lower training.lr_peak" in line
