import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from components.shared.documents.plan import Plan
from components.shared.spec.file import load_spec, spec_yaml
from components.shared.store.layout import PLAN
from components.shared.store.manifest import publish_folder
from components.shared.store.storage import LocalStore
from components.train.devices import device_problem, no_gpu_problem, runs_on
from components.train.driver import Driver
from tests.support.example_plans import ROOT, plan_example
from tests.support.free_port import free_port
from tests.unit.train.fake_gpu import IMPORTED, WHEEL, make_up

ALL_END_S = 60


def example(name: str) -> Plan:
    return plan_example(load_spec(ROOT / "specs" / "plans" / f"{name}.yaml"))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch.cuda, whose functions a test may exchange."""
    for name in ("is_available", "device_count", "get_device_properties", "get_arch_list", "is_bf16_supported"):
        monkeypatch.setattr(torch.cuda, name, getattr(torch.cuda, name))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    return torch.cuda


def test_a_gpu_as_planned_has_no_problem_and_a_plan_for_cpus_needs_none(cuda: Any) -> None:
    make_up(cuda, 2)
    assert device_problem(example("elyza-7b-lora-1x24gb")) is None
    make_up(cuda, 0)
    assert device_problem(example("gpt2-medium-full-cpu")) is None


@pytest.mark.parametrize(
    ("num_gpus", "changed", "words"),
    [
        (0, {}, r"torch .* finds none here: it is built without CUDA\. Fix: in a cluster use the image train-cuda"),
        (1, {}, "found 1 GPUs for 2 processes of this node, the pod was promised 2"),
        (2, {"major": 7, "minor": 0, "name": "Tesla V100"}, "the Tesla V100 is of architecture sm_70, for which torch"),
        (2, {"total_memory": 15 * 2**30}, r"the NVIDIA A10 has 15\.0 GiB, the plan fills up to 21\.6 of 24\.0 GiB"),
        (2, {"bf16": False}, "the NVIDIA A10 does not compute bf16"),
    ],
)
def test_what_a_process_lacks_is_a_sentence(
    cuda: Any, monkeypatch: pytest.MonkeyPatch, num_gpus: int, changed: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("HAGANE_GPUS", "2")
    make_up(cuda, num_gpus, **changed)
    problem = device_problem(example("elyza-7b-lora-1x24gb"))
    assert problem is not None
    assert re.search(words, problem), problem


def test_a_pod_that_was_promised_gpus_needs_them_whatever_the_plan_says(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make_up(cuda, 0)
    monkeypatch.setenv("HAGANE_GPUS", "2")
    assert device_problem(example("gpt2-medium-full-cpu")) is not None


def test_the_driver_is_named_since_cuda_13_needs_a_new_one() -> None:
    problem = no_gpu_problem(Driver("535.104.05", "12.2"), "13.0")
    assert "finds none here: found driver 535.104.05 that serves CUDA 12.2; torch has CUDA 13.0" in problem
    assert "Fix: update the node's driver to R580" in problem


def test_a_driver_that_fits_leads_to_the_pods_request() -> None:
    assert "driver 580.65.06 fits. Fix: see that the pod requests GPUs" in no_gpu_problem(Driver("580.65.06", "13.0"), "13.0")


@pytest.mark.parametrize(
    ("arch_list", "capability", "runs"),
    [
        (WHEEL, (7, 0), False),
        (WHEEL, (7, 5), True),
        (WHEEL, (8, 9), True),
        (WHEEL, (9, 0), True),
        (WHEEL, (12, 1), True),
        (["sm_90a"], (9, 0), True),
        (["sm_100a"], (10, 3), False),
        (["sm_100f"], (10, 3), True),
        (["sm_80", "compute_80"], (12, 0), True),
        (["sm_80"], (12, 0), False),
    ],
)
def test_which_code_runs_on_which_gpu(arch_list: list[str], capability: tuple[int, int], runs: bool) -> None:
    assert runs_on(arch_list, *capability) == runs


def planned_run(folder: Path) -> str:
    """A run that has a spec and a plan for two GPUs, and nothing else."""
    spec = load_spec(ROOT / "specs" / "plans" / "elyza-7b-lora-1x24gb.yaml")
    run = folder / "store" / spec.name
    store = LocalStore(run)
    store.write_bytes("spec.yaml", spec_yaml(spec).encode())
    local = folder / "plan"
    local.mkdir()
    (local / "plan.json").write_text(plan_example(spec).model_dump_json())
    publish_folder(store, PLAN, local, made_by="render_config", inputs={}, facts={})
    return str(run)


def test_two_processes_of_which_one_has_no_gpu_both_end_soon_with_its_reason(tmp_path: Path) -> None:
    run, port = planned_run(tmp_path), str(free_port())
    processes = []
    for rank, num_gpus in enumerate(("2", "0")):
        env = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "HAGANE_LOG": "json", "HAGANE_GPUS": "2", "DS_ACCELERATOR": "cpu",
        }  # fmt: skip
        command = [sys.executable, "-W", "ignore", "-m", "tests.unit.train.fake_gpu", num_gpus, run]
        processes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    begun = max(float(output.split(IMPORTED)[1].split()[0]) for output in outputs)
    took_s = time.time() - begun
    print(f"both ended {took_s:.1f} s after the last had its libraries:\n{outputs[0]}")
    assert took_s < ALL_END_S
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 1, output
        assert "training: process rank 1 on" in output
        assert "finds none here" in output
