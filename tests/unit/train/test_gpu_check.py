"""Every check of components.train.gpu_check, made to fail once by a fault planted for it."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from components.shared.documents.findings import Finding
from components.shared.documents.gpu_check import on_cpus
from components.train import driver as driver_module
from components.train.driver import Driver, driver_problem, find_driver
from components.train.gpu_check import facts as facts_module
from components.train.gpu_check.device_checks import (
    CHECKS,
    device_findings,
    has_kernels,
    usable_gpus,
)
from components.train.gpu_check.exchange import exchange_findings
from components.train.gpu_check.facts import attention_error, error_of, node_facts, one_wide_bmm
from components.train.gpu_check.groups import Ran, run_program
from components.train.gpu_check.plain_request import plain_request
from components.train.gpu_check.small_run import SmallRun, small_plan
from components.train.gpu_check.table import table
from components.train.gpu_check.training_checks import first_start_findings, resume_finding
from tests.unit.train.gpu_check_faults import GIB, HEALTHY, gpu_request, gpus, with_fault

NO_TRITON = "RuntimeError: Failed to find C compiler"
DEVICE_FAULTS: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("torch", {"torch_cuda": None}, {}, "failed", "built without CUDA, and the plan is for GPUs"),
    (
        "driver",
        {"driver": "550.54.15", "driver_cuda": "12.4"},
        {},
        "failed",
        "found driver 550.54.15 that serves CUDA 12.4",
    ),
    ("GPUs", {"gpus": gpus()[:6]}, {}, "failed", "6 here, the plan has 8 a node"),
    (
        "GPUs",
        {"gpus": gpus(name="A100 MIG 3g.40gb")},
        {},
        "failed",
        "MIG instances, and 8 processes a node",
    ),
    (
        "GPU memory",
        {"gpus": gpus(name="L4", total_bytes=23 * GIB)},
        {},
        "failed",
        "L4 has 23.0 GiB, the plan counts on 80.0 GiB",
    ),
    (
        "GPU memory",
        {"gpus": gpus(free_bytes=30 * GIB)},
        {},
        "failed",
        "50.0 GiB of NVIDIA A100-SXM4-80GB are in use by others",
    ),
    (
        "kernels in the wheel",
        {"gpus": gpus(name="V100", capability="7.0")},
        {},
        "failed",
        "V100 has compute capability 7.0",
    ),
    (
        "number format",
        {"bf16": False},
        {},
        "failed",
        "the plan is bf16, and this device has no bf16",
    ),
    (
        "/dev/shm",
        {"shared_memory_bytes": 64 * 2**20},
        {},
        "failed",
        "0.1 GiB, NCCL may take 4.0 GiB for 8 GPUs",
    ),
    (
        "pinned memory",
        {"pinned_error": "RuntimeError: CUDA error"},
        {"offload": True},
        "failed",
        "1 GiB cannot be pinned",
    ),
    (
        "pinned memory",
        {"pinned_error": "RuntimeError: CUDA error"},
        {},
        "warning",
        "copies to the GPU are slower",
    ),
    (
        "attention",
        {"attention": dict.fromkeys(HEALTHY.attention, "no kernel")},
        {},
        "failed",
        "no kernel runs with a mask in bf16",
    ),
    (
        "attention",
        {"attention": {**dict.fromkeys(HEALTHY.attention, "x"), "plain": ""}},
        {},
        "warning",
        "only the plain kernel runs",
    ),
    ("bmm of width 1", {"bmm_error": NO_TRITON}, {}, "failed", "Failed to find C compiler"),
    ("matrix products", {"tflops": None}, {}, "failed", "none could be made in bf16"),
    (
        "matrix products",
        {"tflops": 90.0},
        {},
        "warning",
        "90 TFLOP/s in bf16; the plan's data sheet says 312",
    ),
]


def found(check: str, findings: Any) -> Finding:
    (finding,) = [each for each in findings if each.check == check]
    return finding


def test_a_healthy_node_passes_every_check() -> None:
    findings = list(device_findings(gpu_request(), HEALTHY))
    assert [each.line for each in findings if each.state != "ok"] == []
    assert len(findings) == len(CHECKS)


@pytest.mark.parametrize(("check", "fault", "asked", "state", "words"), DEVICE_FAULTS)
def test_a_fault_of_the_node_fails_its_check_and_says_how_to_fix_it(
    check: str, fault: dict[str, Any], asked: dict[str, Any], state: str, words: str
) -> None:
    finding = found(check, device_findings(gpu_request(**asked), with_fault(**fault)))
    print(finding.state, finding.line)
    assert finding.state == state
    assert words in finding.found
    assert finding.fix != ""


def test_without_a_gpu_what_needs_one_is_left_out_and_only_its_absence_fails() -> None:
    findings = {
        each.check: each
        for each in device_findings(
            gpu_request(), with_fault(gpus=(), cuda_error="no CUDA-capable device")
        )
    }
    assert [name for name, each in findings.items() if each.state == "failed"] == ["GPUs"]
    assert "torch says: no CUDA-capable device" in findings["GPUs"].found
    assert {"GPU memory", "pinned memory", "attention", "matrix products"} <= {
        name for name, each in findings.items() if each.state == "skipped"
    }
    assert not usable_gpus(gpu_request(), with_fault(gpus=gpus()[:7]))


@pytest.mark.parametrize(
    ("capability", "there", "expected"),
    [
        ("8.9", ("sm_80", "sm_86"), True),
        ("8.0", ("sm_86",), False),
        ("7.0", ("sm_75", "sm_80"), False),
        ("12.0", ("sm_90", "compute_90"), True),
        ("9.0", ("sm_90a",), True),
        ("10.3", ("sm_100",), True),
    ],
)
def test_a_gpu_runs_code_of_its_own_major_version_or_ptx(
    capability: str, there: tuple[str, ...], expected: bool
) -> None:
    assert has_kernels(capability, there) is expected


@pytest.mark.parametrize(
    ("driver", "words", "fix"),
    [
        (Driver(None, None), "found no NVIDIA driver here", "device plugin"),
        (
            Driver("550.54.15", "12.4"),
            (
                "found driver 550.54.15 that serves CUDA 12.4; torch has CUDA 13.0, which needs "
                "driver R580"
            ),
            "update the node's driver",
        ),
        (Driver("580.65.06", None), "not its library libcuda.so.1", "LD_LIBRARY_PATH"),
        (Driver(None, "12.8"), "found driver of unknown version that serves CUDA 12.8", "R580"),
        (Driver("535.183.01", None), "found driver 535.183.01; torch has CUDA 13.0", "R580"),
    ],
)
def test_a_driver_that_does_not_fit_is_named(driver: Driver, words: str, fix: str) -> None:
    problem = driver_problem(driver, "13.0")
    assert problem is not None
    assert words in problem[0]
    assert fix in problem[1]
    assert driver_problem(Driver("580.65.06", "13.0"), "13.0") is None
    assert driver_problem(Driver("550.54.15", "12.4"), "12.8") is None
    assert driver_problem(Driver("535.183.01", "13.0"), "13.0") is None, "by NVIDIA's cuda-compat"


def test_the_driver_is_read_from_the_kernels_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "version"
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\nGCC "
        "version: 12.3.0\n"
    )
    monkeypatch.setattr(driver_module, "_library_cuda", lambda: "12.8")
    assert find_driver(file) == Driver("570.124.06", "12.8")
    assert find_driver(tmp_path / "none") == Driver(None, "12.8")


def exchanged(scope: str, **fields: Any) -> Ran:
    event = {
        "event": "exchanged",
        "scope": scope,
        "num_processes": 8,
        "gb_s": 250.0,
        "right": True,
        **fields,
    }
    return Ran(exit_code=0, seconds=1, events=[event])


@pytest.mark.parametrize(
    ("check", "ran", "state", "words"),
    [
        ("all-reduce in the node", exchanged("node", right=False), "failed", "the sums are wrong"),
        (
            "all-reduce in the node",
            exchanged("node", gb_s=12.0),
            "warning",
            "12 GB/s; the plan assumes 300",
        ),
        (
            "all-reduce between nodes",
            exchanged("nodes", gb_s=1.2),
            "warning",
            "1.2 GB/s; the plan assumes 12",
        ),
        (
            "all-reduce between nodes",
            Ran(None, 60.0, lines=["torch.distributed.DistStoreError: Timed out"]),
            "failed",
            "no end within 60 s",
        ),
        (
            "all-reduce in the node",
            Ran(1, 5.0, lines=["RuntimeError: NCCL error: unhandled system error"]),
            "failed",
            "unhandled system error",
        ),
    ],
)
def test_a_fault_between_processes_fails_its_check(
    check: str, ran: Ran, state: str, words: str
) -> None:
    finding = found(check, exchange_findings(gpu_request(nodes=2), ran, on_gpus=True))
    print(finding.state, finding.line)
    assert finding.state == state
    assert words in finding.found
    assert finding.fix != ""


def test_a_slow_network_is_said_in_the_unit_of_the_spec() -> None:
    finding = found(
        "all-reduce between nodes",
        exchange_findings(gpu_request(nodes=2), exchanged("nodes", gb_s=1.25), on_gpus=True),
    )
    assert "hardware.network_gbit_s: 10" in finding.fix


def test_one_process_on_one_node_has_nothing_to_exchange() -> None:
    findings = list(exchange_findings(gpu_request(processes=1), Ran(0, 0), on_gpus=True))
    assert [each.state for each in findings] == ["skipped", "skipped"]


SMALL = SmallRun(Path("/none"), processes=2)


def started(
    *losses: float, step: int = 4, committed: bool = True, resumed: int | None = None
) -> Ran:
    """A start that succeeded, with what it printed."""
    events: list[dict[str, Any]] = [{"event": "held_out", "loss": loss} for loss in losses]
    events.append({"event": "checkpoint", "step": step, "committed": committed, "num_bytes": 10**6})
    if resumed is not None:
        events.append({"event": "resumed", "step": resumed})
    return Ran(exit_code=0, seconds=9, events=events)


BROKEN = Ran(
    exit_code=1,
    seconds=9,
    lines=["[rank0]: RuntimeError: CUDA error: no kernel image is available"],
)
FIRST_FAULTS = [
    ("small training", BROKEN, "failed", "no kernel image is available"),
    ("small training", started(9.0, 9.1), "failed", "the loss does not fall (9.000 -> 9.100)"),
    ("small training", started(9.0, float("nan")), "failed", "the loss does not fall"),
    ("save", started(9.0, 7.0, committed=False), "failed", "was not committed"),
    ("save", BROKEN, "skipped", "did not come so far"),
    ("three timed steps", BROKEN, "skipped", "did not come so far"),
]


@pytest.mark.parametrize(("check", "ran", "state", "words"), FIRST_FAULTS)
def test_a_fault_of_the_small_training_fails_its_check(
    check: str, ran: Ran, state: str, words: str
) -> None:
    finding = found(
        check,
        first_start_findings(
            SMALL, gpu_request().plan, ran, {"seconds_per_step": 0.1} if ran is not BROKEN else {}
        ),
    )
    print(finding.state, finding.line)
    assert finding.state == state
    assert words in finding.found
    assert (finding.fix != "") is (state == "failed")


ON_ANOTHER_DEVICE = (
    "[rank0]: RuntimeError: Expected all tensors to be on the same device, but got state_steps is "
    "on cpu"
)
RESUME_FAULTS = [
    (Ran(exit_code=1, seconds=9, lines=[ON_ANOTHER_DEVICE]), "failed", "got state_steps is on cpu"),
    (started(7.5, resumed=4), "failed", "the loss rose (7.000 -> 7.500)"),
    (started(6.0), "failed", "began at step 0 instead of 4"),
    (None, "skipped", "no checkpoint to go on from"),
]


@pytest.mark.parametrize(("second", "state", "words"), RESUME_FAULTS)
def test_a_fault_of_the_resume_fails_its_check(second: Ran | None, state: str, words: str) -> None:
    finding = resume_finding(SMALL, started(9.0, 7.0), second)
    print(finding.state, finding.line)
    assert finding.state == state
    assert words in finding.found
    assert (finding.fix != "") is (state == "failed")


def test_a_resume_that_goes_on_passes() -> None:
    assert resume_finding(SMALL, started(9.0, 7.0), started(6.5, resumed=4)).state == "ok"


def ends(process: int) -> bool:
    """Whether a process that was killed is gone within ten seconds: on a busy machine it may be
    some time until it is."""
    status = Path(f"/proc/{process}/status")
    for _ in range(100):
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.1)
    return False


def test_a_program_that_hangs_is_ended_with_all_it_started_and_what_it_said_is_kept(
    tmp_path: Path,
) -> None:
    module = tmp_path / "sleeper.py"
    module.write_text(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('waiting for a peer', child.pid, flush=True)\n"
        "child.wait()\n"
    )
    ran = run_program("sleeper", seconds=15, environment={"PYTHONPATH": str(tmp_path)})
    assert ran.exit_code is None
    assert ran.problem is not None
    assert re.match(r"no end within 1\d s: waiting for a peer", ran.problem)
    assert ends(int(ran.lines[-1].split()[-1]))


def test_of_a_program_that_fails_its_last_error_is_the_problem_and_names_the_fix(
    tmp_path: Path,
) -> None:
    (tmp_path / "failing.py").write_text(
        "raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')\n"
    )
    ran = run_program("failing", seconds=60, environment={"PYTHONPATH": str(tmp_path)})
    assert ran.problem == "exit code 1: RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"
    assert "another program uses the GPU" in ran.fix


def test_a_kernel_that_raises_becomes_one_line() -> None:
    def compile_it() -> None:
        raise RuntimeError("Failed to find C compiler\nPlease set CC")

    assert error_of(compile_it) == NO_TRITON


def test_a_bmm_that_gives_other_numbers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    cpu = torch.device("cpu")
    assert error_of(lambda: one_wide_bmm(cpu, torch.float32)) == ""
    monkeypatch.setattr(torch, "bmm", lambda left, right: left * right + 1)
    assert "ArithmeticError: the product differs by 1" in error_of(
        lambda: one_wide_bmm(cpu, torch.float32)
    )
    assert attention_error("plain", cpu, torch.float32) == ""
    assert attention_error("cuDNN", cpu, torch.float32) != ""


def test_this_machine_has_facts_that_survive_the_way_through_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(facts_module, "matrix_tflops", lambda device, dtype: 0.1)
    facts = node_facts("fp32")
    assert type(facts).model_validate_json(json.dumps(facts.model_dump())) == facts
    findings = list(
        device_findings(plain_request(processes=2, stage=1, offload="none", method="full"), facts)
    )
    assert [each.line for each in findings if each.state == "failed"] == []


@pytest.mark.parametrize(("processes", "fewer"), [(8, 4), (2, 1), (3, 1), (1, 1)])
def test_half_the_processes_keep_the_global_batch(
    tmp_path: Path, processes: int, fewer: int
) -> None:
    run = SmallRun(tmp_path, processes)
    steps = small_plan(run, gpu_request(), num_parameters=10, epochs=2).steps
    assert (steps.num_processes, steps.grad_accum * steps.num_processes) == (fewer, processes)


def test_a_plan_for_gpus_is_tried_on_cpus_as_one_for_cpus() -> None:
    request = on_cpus(gpu_request(precision="fp16", offload=True))
    assert (request.plan.on_gpus, request.plan.precision) == (False, "fp32")
    assert request.plan.zero == gpu_request(offload=True).plan.zero


def test_the_table_has_the_fix_below_what_was_seen() -> None:
    lines = table(
        [
            Finding(check="driver", state="failed", found="too old", fix="update it"),
            Finding(check="bmm", state="ok", found="right"),
        ]
    ).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["driver", "failed", "too", "old"],
        ["fix:", "update", "it"],
        ["bmm", "ok", "right"],
    ]
