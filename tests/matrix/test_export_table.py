"""Every architecture x LoRA or full x processes: trained, exported, and loaded again in a folder of its own by plain libraries alone.

The program that loads it knows nothing of hagane: it reads the prompts and the logits that training recorded, and says how far its own are.
`make test-matrix` prints the table.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs.test_whole_runs import train_only
from tests.support.command_line import environment, write_spec
from tests.support.tiny_models import make_model, write_conversations

pytestmark = pytest.mark.slow

ARCHITECTURES = ("llama", "qwen3", "gemma", "gpt_neox", "gpt2", "mixtral")
ALLOWED = 1e-4
"""Largest difference of logits, in standard deviations: fp32, another order of sums (components/export_adapter/verification/comparison.py)."""
RELOAD = """
import json, sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
export, base, probe, prompts = sys.argv[1:]
kept, prompts = load_file(probe), json.load(open(prompts))["prompts"]
if base:
    from peft import PeftModel
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), export)
else:
    model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
tokenizer, model, rows = AutoTokenizer.from_pretrained(export), model.eval(), []
for prompt in prompts:
    ids = tokenizer(prompt["text"], add_special_tokens=False)["input_ids"][: prompt["probe_length"]]
    assert ids == prompt["token_ids"][: prompt["probe_length"]]
    with torch.no_grad():
        rows.append(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -8:])
print(float(((torch.cat(rows) - kept["logits"]) / kept["logits"].std()).abs().max()))
"""


def spec_of(folder: Path, architecture: Any, *, method: str, num_processes: int) -> Path:
    """Attention alone for a mixture of experts, whose experts' updates cannot be merged."""
    tree = {
        "name": "tiny",
        "store": str(folder / "store"),
        "model": {"source": str(make_model(folder / "model", architecture=architecture))},
        "data": {
            "train": str(write_conversations(folder / "train.jsonl", 24, seed=1)),
            "held_out": str(write_conversations(folder / "held_out.jsonl", 4, seed=2)),
            "row_tokens": 256,
        },
        "training": {"method": method, "epochs": 1, "global_batch": 2, "lr_peak": 0.005, "seed": 3, "precision": "fp32"},
        "lora": {"rank": 4, "targets": "attention" if architecture == "mixtral" else "auto"},
        "zero": {"stage": 3 if num_processes > 1 else 2},
        "hardware": {"processes_per_node": num_processes},
        "export": {"merge": True},
    }
    return write_spec(folder / "spec.yaml", tree)


def reloaded(export: Path, empty: Path, *, base: Path | str, run: Path) -> float:
    """Largest difference of the export, copied into an empty folder, from the logits of training."""
    shutil.rmtree(empty, ignore_errors=True)
    shutil.copytree(export, empty / "export")
    files = [str(run / "checkpoints/probe.safetensors"), str(run / "dataset/prompts.json")]
    command = [sys.executable, "-I", "-W", "ignore", "-c", RELOAD, "export", str(base), *files]
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout)


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_export_gives_the_logits_of_training_wherever_it_is_loaded(
    architecture: str, method: str, num_processes: int, tmp_path: Path
) -> None:
    run, work = tmp_path / "store/tiny", tmp_path / "work"
    train_only(spec_of(tmp_path, architecture, method=method, num_processes=num_processes), [], run=str(run), work=work)
    command = [sys.executable, "-W", "ignore", "-m", "components.export_adapter", "--run", str(run)]
    done = subprocess.run(command, env=environment(work), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    folder, base = ("adapter", tmp_path / "model") if method == "lora" else ("model", "")
    found = {folder: reloaded(run / folder, tmp_path / "empty", base=base, run=run)}
    if method == "lora":
        found["merged"] = reloaded(run / "merged", tmp_path / "empty", base="", run=run)
    verification = json.loads((run / folder / "verification.json").read_bytes())
    row = "   ".join(f"{name} {value:.1e}" for name, value in found.items())
    print(f"{architecture:9} {method:5} {num_processes} processes   {row}   base {verification['base']['max']:.2g}")
    assert max(found.values()) < ALLOWED < verification["base"]["max"]
