"""Whole runs from the command line, one for each kind that tests/integration has not: minutes, so `make test-runs` runs them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.layout import manifest_key
from components.shared.store.storage import LocalStore, open_store
from tests.integration.test_pipeline import EPOCHS, ZERO3, assert_run_verified, read_json, tiny_spec
from tests.support.command_line import HAGANE, environment, hagane
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("architecture", "method"), [("llama", "full"), ("gpt_neox", "lora"), ("gpt_neox", "full")])
def test_a_spec_becomes_a_verified_model(architecture: str, method: str, tmp_path: Path) -> None:
    zero = ZERO3 if architecture == "llama" else "auto"
    assert_run_verified(tiny_spec(tmp_path, architecture=architecture, method=method, zero=zero), tmp_path)


def test_a_run_that_holds_nothing_out_is_finished_without_a_gate(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, zero="auto")
    tree = yaml.safe_load(spec.read_text())
    del tree["data"]["held_out"]
    spec.write_text(json.dumps({**tree, "data": {**tree["data"], "held_out_share": 0}}))
    done = hagane("run", spec, work=tmp_path / "work")
    assert done.exit_code == 0, done.errors
    assert "nothing was held out, so no loss says whether it helped" in done.output
    report = read_json(LocalStore(tmp_path / "store/tiny"), "report/report.json")
    assert report["held_out_loss"] is None
    assert report["answers"][0]["question"] == "What is 12 plus 7?"


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
    train_only(spec, settings, run=run, work=tmp_path / "work")
    store = LocalStore(Path(run))
    assert len(read_json(store, "checkpoints/history.json")["steps"]) == steps["total_steps"]
    assert [checkpoint.step for checkpoint in committed_checkpoints(store)] == steps["save_steps"]


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
    [torchrun] = [p for p in psutil.Process(running.pid).children(recursive=True) if "torch.distributed.run" in p.cmdline()]
    torchrun.children()[-1].send_signal(signal.SIGKILL)
    _, errors = running.communicate()
    assert running.returncode == 1
    assert "was killed by SIGKILL" in errors
    newest = committed_checkpoints(LocalStore(folder / "killed/tiny"))[-1]  # epoch 2 may have been on its way to the store already
    assert newest.epoch is not None
    assert newest.epoch < 12
    assert f"{newest.told} is committed; the same command goes on from there" in errors
