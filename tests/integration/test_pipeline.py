"""The whole pipeline on tiny models, from the command line: real data, real DeepSpeed, real checkpoints, a real S3 server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from components.export_adapter.logits import prompt_logits
from components.shared.checkpoints import committed_checkpoints
from components.shared.prompts import read_prompts
from components.shared.spec_file import load_spec
from components.shared.storage import LocalStore, Store
from tests.command_line import environment, hagane, write_spec
from tests.tiny_models import make_model, write_conversations

EPOCHS = 2


ZERO3 = {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"}


def tiny_spec(
    folder: Path, *, architecture: Any = "llama", method: str = "lora", store: str | None = None, zero: Any = ZERO3, **training: Any
) -> Path:
    """A run of two processes on a tiny random model, 48 conversations, two epochs unless told otherwise."""
    return write_spec(
        folder / "spec.yaml",
        {
            "name": "tiny",
            "store": store or str(folder / "store"),
            "model": {"source": str(make_model(folder / "model", architecture=architecture))},
            "data": {
                "train": str(write_conversations(folder / "train.jsonl", 48, seed=1)),
                "held_out": str(write_conversations(folder / "held_out.jsonl", 8, seed=2)),
                "row_tokens": 256,
            },
            "training": {"method": method, "epochs": EPOCHS, "global_batch": 4, "lr_peak": 0.005, "seed": 3, **training},
            "lora": {"rank": 4, "dropout": 0.1},
            "zero": zero,
            "hardware": {"processes_per_node": 2},
            "evaluation": {"questions": ["What is 12 plus 7?"], "answer_tokens": 8},
        },
    )


def read_json(store: Store, key: str) -> Any:
    return json.loads(store.read_bytes(key))


def test_a_spec_becomes_a_verified_adapter(tmp_path: Path) -> None:
    assert_run_verified(tiny_spec(tmp_path), tmp_path)


def assert_run_verified(spec: Path, folder: Path) -> None:
    """`hagane run` of a spec with its store in `folder` ends with what was planned, and with a model that is better than the base."""
    done = hagane("run", spec, work=folder / "work")
    assert done.exit_code == 0, done.errors
    store = LocalStore(folder / "store/tiny")
    plan, history = read_json(store, "plan/plan.json"), read_json(store, "checkpoints/history.json")
    assert [checkpoint.step for checkpoint in committed_checkpoints(store)] == plan["steps"]["save_steps"]
    assert [step["step"] for step in history["steps"]] == list(range(1, plan["steps"]["total_steps"] + 1))
    stored = [checkpoint.num_bytes for checkpoint in committed_checkpoints(store)]
    # Tiny checkpoints are mostly what does not grow with the model: names of tensors, pickled classes.
    assert all(abs(num_bytes - plan["checkpoints"]["bytes_each"]) < 250_000 for num_bytes in stored)
    report = read_json(store, "report/report.json")
    assert report["held_out_loss"]["tuned"] < report["held_out_loss"]["base"]
    assert report["answers"][0]["question"] == "What is 12 plus 7?"
    happened = {figure["what"]: figure for figure in report["against_plan"]}
    assert set(happened) == {"optimizer steps", "a step", "all steps, with held-out loss and saves", "memory of a node", "a checkpoint"}
    assert happened["optimizer steps"]["happened"] == plan["steps"]["total_steps"]
    memory = happened["memory of a node"]
    assert 0.7 < memory["happened"] / memory["planned"] < 1.3
    assert "is finished" in done.output


RUN_COMPILED = """
import json, sys, warnings
warnings.simplefilter("ignore")
from kfp import components, local
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[3])
components.load_component_from_file(sys.argv[1])(spec=json.loads(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def compiled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an fp32 LoRA run made by the compiled YAML; its base model is in `model` beside `store`."""
    folder = tmp_path_factory.mktemp("compiled")
    compiled = folder / "finetune.yaml"
    assert hagane("compile", compiled, work=folder / "work").exit_code == 0
    spec = load_spec(tiny_spec(folder, epochs=1, precision="fp32")).model_dump_json(exclude_none=True)
    command = [sys.executable, "-c", RUN_COMPILED, str(compiled), spec, str(folder / "kfp")]
    done = subprocess.run(command, env=environment(folder / "work"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


def test_the_compiled_yaml_itself_runs(compiled_run: Path) -> None:
    assert read_json(LocalStore(compiled_run / "store/tiny"), "report/report.json")["run"] == "tiny"


def test_the_adapter_in_plain_peft_gives_the_trained_models_logits(compiled_run: Path) -> None:
    run = compiled_run / "store/tiny"
    base = AutoModelForCausalLM.from_pretrained(compiled_run / "model", dtype=torch.float32)
    probe = load_file(run / "checkpoints/probe.safetensors")
    prompts = read_prompts(run / "dataset")
    untuned = prompt_logits(base, prompts)
    tuned = prompt_logits(PeftModel.from_pretrained(base, run / "adapter").eval(), prompts)
    assert len(prompts.prompts) == 4
    # fp32 on both sides; only the order of sums differs between DeepSpeed's and plain layers: some units of 1e-7 x |logit|.
    assert torch.allclose(tuned, probe["logits"], atol=1e-4)
    assert not torch.allclose(untuned, probe["logits"], atol=1e-2)
