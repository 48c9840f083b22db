"""LoRA of a mixture of experts, from data to evaluation, by type, targets, ZeRO stage and number of processes: `make test-matrix`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.runs.test_whole_runs import train_only
from tests.support.command_line import hagane, write_spec
from tests.support.tiny_models import make_model, write_conversations

pytestmark = pytest.mark.slow

TYPES = ("qwen3_moe", "mixtral", "gpt_oss")


def spec_of(folder: Path, architecture: Any, *, targets: str, stage: int, num_processes: int, epochs: int = 1) -> Path:
    tree = {
        "name": "tiny",
        "store": str(folder / "store"),
        "model": {"source": str(make_model(folder / "model", architecture=architecture))},
        "data": {
            "train": str(write_conversations(folder / "train.jsonl", 24, seed=1)),
            "held_out": str(write_conversations(folder / "held_out.jsonl", 4, seed=2)),
            "row_tokens": 256,
        },
        "training": {"epochs": epochs, "global_batch": 2, "lr_peak": 0.005, "seed": 3, "precision": "fp32"},
        "lora": {"rank": 4, "targets": targets},
        "zero": {"stage": stage},
        "hardware": {"processes_per_node": num_processes},
    }
    return write_spec(folder / "spec.yaml", tree)


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize("targets", ["auto", "attention"])
@pytest.mark.parametrize("architecture", TYPES)
def test_an_adapter_of_experts_is_exported_verified_and_evaluated(
    architecture: str, targets: str, stage: int, num_processes: int, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, architecture, targets=targets, stage=stage, num_processes=num_processes)
    done = hagane("run", spec, work=tmp_path / "work")
    assert done.exit_code == 0, done.errors
    run = tmp_path / "store" / "tiny"
    with safe_open(run / "adapter/adapter_model.safetensors", "pt") as adapter:
        assert any("experts" in name for name in adapter.keys()) == (targets == "auto")  # noqa: SIM118 - no mapping
    verification, evaluation, history = (
        json.loads((run / name).read_bytes())
        for name in ("adapter/verification.json", "evaluation/evaluation.json", "checkpoints/history.json")
    )
    assert verification["exported"]["max"] < 1e-4 < verification["base"]["max"]
    # The model in training and plain PEFT agree; fp32, some units of 1e-7 x loss.
    assert evaluation["tuned"]["loss"] == pytest.approx(history["epochs"][-1]["held_out_loss"], abs=1e-4)
    assert evaluation["tuned"]["loss"] < evaluation["base"]["loss"]


@pytest.mark.parametrize(("stage", "num_processes"), [(0, 1), (3, 2)])
@pytest.mark.parametrize("architecture", TYPES)
def test_training_of_experts_resumes_with_the_losses_of_an_undisturbed_one(
    architecture: str, stage: int, num_processes: int, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, architecture, targets="auto", stage=stage, num_processes=num_processes, epochs=2)
    run, work = tmp_path / "store" / "tiny", tmp_path / "work"
    train_only(spec, [], run=str(run), work=work)
    history = json.loads((run / "checkpoints/history.json").read_bytes())
    shutil.rmtree(run / "checkpoints/epoch-0002")
    for name in ("manifest.json", "history.json", "probe.safetensors"):
        (run / "checkpoints" / name).unlink()
    train_only(spec, [], run=str(run), work=work)
    resumed = json.loads((run / "checkpoints/history.json").read_bytes())
    assert resumed["steps"] == history["steps"]
    assert resumed["epochs"] == history["epochs"]
