"""`python -m benchmarks.memory_truth [WORD …]`: plans small trainings, runs them on this machine,
and sets peak memory beside the plan.

What is measured is each training process's peak resident memory (VmHWM), added up; DeepSpeed's own
estimate of the same stands beside. Needs 12 GB and half an hour.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.small_runs import Case, config_of, make_model, make_run, spec_of
from components.launch_training.backends.local import torchrun_command, worker_settings
from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.shared.documents.plan import Plan
from components.shared.spec.results import CheckpointSpec

NUM_STEPS = 2
CASES = (
    Case("llama-30M", "lora", 0, offload=False, processes=1),
    Case("llama-30M", "full", 2, offload=False, processes=1),
    Case("llama-135M", "lora", 0, offload=False, processes=1),
    Case("llama-135M", "lora", 0, offload=False, processes=1, row_tokens=1024),
    Case("llama-135M", "lora", 0, offload=False, processes=1, row_tokens=1024, checkpointing=True),
    Case("llama-135M", "lora", 3, offload=True, processes=1),
    Case("llama-135M", "lora", 3, offload=False, processes=2),
    Case("llama-135M", "full", 2, offload=True, processes=2),
    Case("llama-135M", "full", 3, offload=True, processes=1),
    Case("llama-135M", "full", 3, offload=False, processes=2),
    Case("gpt_neox-30M", "lora", 2, offload=False, processes=2),
    Case("gpt_neox-160M", "lora", 0, offload=False, processes=2),
    Case("gpt_neox-160M", "full", 3, offload=True, processes=2),
    Case("gpt_neox-160M", "full", 2, offload=False, processes=1),
    Case("llama-350M", "lora", 0, offload=False, processes=1),
    Case("llama-350M", "lora", 3, offload=True, processes=2),
    Case("gpt_neox-350M", "full", 2, offload=False, processes=1),
    Case("llama-350M", "full", 3, offload=True, processes=1),
    Case("llama-135M", "lora", 0, offload=False, processes=1, quantization="nf4"),
    Case("llama-350M", "lora", 0, offload=False, processes=1, quantization="nf4"),
    Case("llama-350M", "lora", 3, offload=False, processes=2, quantization="nf4"),
)


def measured_peak(run: str, plan: Plan, work: Path) -> list[int]:
    """Trains, and returns the peak resident bytes of each training process."""
    environment = os.environ | worker_settings(plan, CheckpointSpec()) | {"HAGANE_WORK": str(work)}
    with (work.parent / "train.log").open("w") as log:
        process = subprocess.Popen(
            torchrun_command(run, plan), env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        peaks: dict[int, int] = {}
        while process.poll() is None:
            for child in children_of(process.pid):
                peaks[child] = max(peaks.get(child, 0), peak_of(child))
            time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"training failed:\n{(work.parent / 'train.log').read_text()[-9000:]}")
    return sorted(peaks.values())[-plan.steps.num_processes :]


def children_of(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def peak_of(pid: int) -> int:
    """VmHWM in bytes; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def deepspeed_estimate(plan: Plan, case: Case) -> int:
    """DeepSpeed's own figure for host and device of one node."""
    program = (
        "import sys; from deepspeed.runtime.zero.stage3 import "
        "estimate_zero3_model_states_mem_needs as three;from deepspeed.runtime.zero.stage_1_and_2 "
        "import estimate_zero2_model_states_mem_needs as two;p, l, n, off, stage = map(int, "
        "sys.argv[1:]);cpu, gpu, *_ = three(p, l, n, 1, bool(off), bool(off), True) if stage == 3 "
        "else two(p, n, 1, bool(off));print(int(cpu + n * gpu))"
    )
    model = plan.model
    arguments = (
        model.num_parameters,
        model.largest_layer_parameters,
        case.processes,
        int(case.offload),
        case.stage,
    )
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    return int(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    )


def row(name: str, plan: Plan, measured: int, rival: int) -> str:
    """One line of the table; host memory of the node, all processes together."""
    predicted = plan.memory.host_bytes
    figures = (f"{each / 2**30:.2f} GiB" for each in (predicted, measured))
    return (
        f"| {name} | {' | '.join(figures)} | {predicted / measured - 1:+.0%} | {rival / 2**30:.2f} "
        f"GiB | {rival / measured - 1:+.0%} |"
    )


def predict_again(file: Path) -> None:
    """The table of runs measured before, by what the plan says now."""
    for line in file.read_text().splitlines():
        found = json.loads(line)
        case = next(case for case in CASES if case.name == found["case"])
        num_rows = 2 * NUM_STEPS * case.processes
        facts = DatasetFacts(
            digest="", num_rows=num_rows, num_tokens=num_rows * case.row_tokens, model_revision=None
        )
        plan = make_plan(
            spec_of(Path(), Path(case.model), case), facts, config_of(case.model), machine=Machine()
        )
        print(row(case.name, plan, sum(found["peaks"]), found["deepspeed"]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_truth", description=__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="run only cases whose name has all of these"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="also add what was measured here, one JSON a line"
    )
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="train nothing: predict anew what --out measured"
    )
    arguments = parser.parse_args()
    print(
        (
            "| run | predicted | measured | difference | DeepSpeed's estimate | its difference "
            "|\n|---|---|---|---|---|---|"
        ),
        flush=True,
    )
    if arguments.again:
        predict_again(arguments.again)
        return
    models = Path(tempfile.mkdtemp(prefix="hagane-truth-"))
    for case in (case for case in CASES if all(word in case.name for word in arguments.words)):
        if not (models / case.model).exists():
            make_model(models / case.model, case.model)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=models))
        run, plan = make_run(folder, models / case.model, case, num_steps=NUM_STEPS)
        peaks = measured_peak(run, plan, folder / "work")
        rival = deepspeed_estimate(plan, case)
        print(row(case.name, plan, sum(peaks), rival), flush=True)
        if arguments.out:
            with arguments.out.open("a") as out:
                out.write(
                    json.dumps({"case": case.name, "peaks": peaks, "deepspeed": rival}) + "\n"
                )
        shutil.rmtree(folder)
    shutil.rmtree(models)


if __name__ == "__main__":
    main()
