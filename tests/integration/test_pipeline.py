"""The whole pipeline on tiny models, from the command line: real data, real DeepSpeed, real checkpoints, a real S3 server."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from components.shared.checkpoints import committed_checkpoints
from components.shared.layout import manifest_key
from components.shared.spec_file import load_spec
from components.shared.storage import LocalStore, Store, open_store
from tests.command_line import HAGANE, environment, hagane, write_spec
from tests.s3_server import S3Server
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


@pytest.mark.parametrize(("architecture", "method"), [("llama", "lora"), ("llama", "full"), ("gpt_neox", "lora"), ("gpt_neox", "full")])
def test_a_spec_becomes_a_verified_model(architecture: str, method: str, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, architecture=architecture, method=method, zero=ZERO3 if architecture == "llama" else "auto")
    done = hagane("run", spec, work=tmp_path / "work")
    assert done.exit_code == 0, done.errors
    store = LocalStore(tmp_path / "store/tiny")
    plan, history = read_json(store, "plan/plan.json"), read_json(store, "checkpoints/history.json")
    assert [checkpoint.step for checkpoint in committed_checkpoints(store)] == plan["steps"]["save_steps"]
    assert [step["step"] for step in history["steps"]] == list(range(1, plan["steps"]["total_steps"] + 1))
    stored = [checkpoint.num_bytes for checkpoint in committed_checkpoints(store)]
    # Tiny checkpoints are mostly what does not grow with the model: names of tensors, pickled classes.
    assert all(abs(num_bytes - plan["checkpoints"]["bytes_each"]) < 250_000 for num_bytes in stored)
    report = read_json(store, "report/report.json")
    assert report["held_out_loss"]["tuned"] < report["held_out_loss"]["base"]
    assert report["answers"][0]["question"] == "What is 12 plus 7?"
    assert "is finished" in done.output


def test_a_finished_run_is_not_done_again_and_its_s3_store_holds_one_checkpoint_per_epoch(tmp_path: Path, s3_env: S3Server) -> None:
    uri = s3_env.fresh_uri()
    spec = tiny_spec(tmp_path, store=uri)
    assert hagane("run", spec, work=tmp_path / "work").exit_code == 0
    store = open_store(f"{uri}/tiny")
    keys = [stored.key for stored in store.list()]
    assert [key for key in keys if key.startswith("checkpoints/epoch-") and key.endswith("manifest.json")] == [
        manifest_key(f"checkpoints/epoch-{epoch:04d}") for epoch in range(1, EPOCHS + 1)
    ]
    again = hagane("run", spec, work=tmp_path / "work")
    assert again.exit_code == 0
    assert again.output.count("already done") == 6
    assert [stored.key for stored in store.list()] == keys
    status = hagane("status", spec, work=tmp_path / "work").output
    assert status.count("yes") == 6 + EPOCHS
    assert "epoch-0002" in status


@pytest.mark.parametrize(
    "changes",
    [
        ["training.epochs=5", "training.global_batch=6", "training.micro_batch=3", "hardware.processes_per_node=1"],
        ["training.epochs=1", "training.global_batch=8", "training.micro_batch=2", "data.row_tokens=128"],
    ],
    ids=["one process, five epochs", "two processes, short rows"],
)
def test_the_plan_shown_beforehand_is_what_the_trainer_does(changes: list[str], tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path)
    settings = [word for change in changes for word in ("--set", change)]
    shown = hagane("plan", spec, *settings, "--out", tmp_path / "plan", work=tmp_path / "work")
    assert shown.exit_code == 0, shown.errors
    steps = json.loads((tmp_path / "plan/plan.json").read_bytes())["steps"]
    assert ", ".join(map(str, steps["save_steps"])) in shown.output
    run = str(tmp_path / "store/tiny")
    for arguments in (
        ["prepare_dataset", "--spec", str(spec), *settings],
        ["render_config", "--run", run],
        ["launch_training", "--run", run],
    ):
        command = [sys.executable, "-m", f"components.{arguments[0]}", *arguments[1:]]
        subprocess.run(command, env=environment(tmp_path / "work"), capture_output=True, check=True)
    store = LocalStore(Path(run))
    assert len(read_json(store, "checkpoints/history.json")["steps"]) == steps["total_steps"]
    assert [checkpoint.step for checkpoint in committed_checkpoints(store)] == steps["save_steps"]


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
    with torch.no_grad():
        untuned = base(input_ids=probe["tokens"][None], use_cache=False).logits[0]
        tuned = PeftModel.from_pretrained(base, run / "adapter")(input_ids=probe["tokens"][None], use_cache=False).logits[0]
    # fp32 on both sides; only the order of sums differs between DeepSpeed's and plain layers: some units of 1e-7 x |logit|.
    assert torch.allclose(tuned, probe["logits"], atol=1e-4)
    assert not torch.allclose(untuned, probe["logits"], atol=1e-2)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_run_resumes_and_ends_with_the_losses_of_an_undisturbed_one(method: str, tmp_path: Path) -> None:
    # The first is committed before the fourth is saved, however slow the uploads, as only two may be unfinished: eight are left to kill in.
    spec = tiny_spec(tmp_path, method=method, epochs=12)
    settings = ["--set", f"store={tmp_path / 'undisturbed'}"]
    train_only(spec, settings, run=str(tmp_path / "undisturbed/tiny"), work=tmp_path / "work")
    arguments = ["run", spec, "--set", f"store={tmp_path / 'killed'}"]
    kill_a_worker_in_epoch_2(arguments, tmp_path)
    done = hagane(*arguments, work=tmp_path / "work")
    assert done.exit_code == 0, done.errors
    histories = [read_json(LocalStore(tmp_path / store / "tiny"), "checkpoints/history.json") for store in ("undisturbed", "killed")]
    assert histories[0]["steps"] == histories[1]["steps"]
    assert histories[0]["epochs"] == histories[1]["epochs"]
    assert "resumed" in done.output


def train_only(spec: Path, settings: list[str], *, run: str, work: Path) -> None:
    """The run's first three steps, each as its own program."""
    for arguments in (
        ["prepare_dataset", "--spec", str(spec), *settings],
        ["render_config", "--run", run],
        ["launch_training", "--run", run],
    ):
        command = [sys.executable, "-m", f"components.{arguments[0]}", *arguments[1:]]
        subprocess.run(command, env=environment(work), capture_output=True, check=True)


def kill_a_worker_in_epoch_2(arguments: list[Any], folder: Path) -> None:
    """Starts the run, kills one training process (-9) once epoch 1 is committed, and waits for the failure to be told."""
    command = [*HAGANE, *map(str, arguments)]
    running = subprocess.Popen(command, env=environment(folder / "work"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    committed = folder / "killed/tiny" / manifest_key("checkpoints/epoch-0001")
    while not committed.exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    workers = [p for p in psutil.Process(running.pid).children(recursive=True) if "components.train" in p.cmdline() and "-u" in p.cmdline()]
    workers[-1].send_signal(signal.SIGKILL)
    _, errors = running.communicate()
    assert running.returncode == 1
    assert "was killed by SIGKILL" in errors
    assert "epoch 1 " in errors
    assert "the same command goes on from there" in errors
