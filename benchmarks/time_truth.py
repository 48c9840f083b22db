"""`python -m benchmarks.time_truth [WORD …]`: plans small trainings, runs them here, and sets the
time of a step beside the plan.

What is measured is what the report shows: the median time of an optimizer step, saves and held-out
loss left out. Needs 12 GB, a quarter of an hour, and a machine that does nothing else; trainings in
bf16 are left out where the processor does not compute it.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.small_runs import Case, make_model, make_run
from components.launch_training.backends.local import torchrun_command, worker_settings
from components.shared.documents.plan import Plan
from components.shared.machine import computes_bf16, machine_flags
from components.shared.spec.results import CheckpointSpec
from components.shared.store.layout import CHECKPOINTS

CASES = (
    Case("llama-4M", "lora", 0, offload=False, processes=1),
    Case("llama-4M", "full", 2, offload=False, processes=2),
    Case("llama-4M", "full", 3, offload=True, processes=2),
    Case("llama-5M", "lora", 0, offload=False, processes=1),
    Case("llama-5M", "full", 2, offload=False, processes=2),
    Case("llama-5M", "full", 3, offload=True, processes=2),
    Case("llama-30M", "lora", 0, offload=False, processes=1),
    Case("llama-30M", "full", 2, offload=False, processes=1),
    Case("llama-30M", "full", 3, offload=True, processes=1),
    Case("gpt_neox-30M", "lora", 2, offload=False, processes=2),
    Case("llama-135M", "lora", 0, offload=False, processes=1),
    Case("llama-135M", "lora", 0, offload=False, processes=1, row_tokens=1024),
    Case("llama-135M", "lora", 0, offload=False, processes=1, row_tokens=1024, checkpointing=True),
    Case("llama-135M", "lora", 3, offload=False, processes=2),
    Case("llama-135M", "full", 2, offload=True, processes=2),
    Case("gpt_neox-160M", "full", 2, offload=False, processes=1),
    Case("llama-350M", "lora", 0, offload=False, processes=1),
    Case("llama-350M", "full", 3, offload=True, processes=1),
    Case("llama-30M", "full", 2, offload=False, processes=1, precision="bf16"),
    Case("llama-135M", "lora", 0, offload=False, processes=1, precision="bf16"),
    Case("llama-135M", "lora", 0, offload=False, processes=1, row_tokens=1024, precision="bf16"),
    Case("llama-135M", "lora", 3, offload=False, processes=2, precision="bf16"),
    Case("llama-135M", "full", 3, offload=True, processes=2, precision="bf16"),
    Case("llama-350M", "lora", 0, offload=False, processes=1, precision="bf16"),
)
NUM_STEPS = 6


def measured_step(run: str, plan: Plan, work: Path) -> float:
    """Trains, and returns the seconds of a step."""
    environment = os.environ | worker_settings(plan, CheckpointSpec()) | {"HAGANE_WORK": str(work)}
    done = subprocess.run(
        torchrun_command(run, plan), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"training failed:\n{(done.stdout + done.stderr)[-9000:]}")
    return json.loads((Path(run) / CHECKPOINTS / "history.json").read_bytes())["seconds_per_step"]


def row(case: Case, plan: Plan, measured: float) -> str:
    """One line of the table."""
    time = plan.time
    assert time is not None
    planned = f"{time.seconds_per_step:.2f} s | {time.low:.2f} to {time.high:.2f} s"
    if time.low <= measured <= time.high:
        is_within = "yes"
    else:
        is_within = "no"
    return (
        f"| {case.name} | {planned} | {measured:.2f} s | "
        f"{measured / time.seconds_per_step - 1:+.0%} | {is_within} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_truth", description=__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="run only cases whose name has all of these"
    )
    arguments = parser.parse_args()
    print(
        "| run | planned | range | measured | difference | within |\n|---|---|---|---|---|---|",
        flush=True,
    )
    models = Path(tempfile.mkdtemp(prefix="hagane-time-"))
    has_bf16 = computes_bf16(machine_flags())
    for case in (case for case in CASES if all(word in case.name for word in arguments.words)):
        if case.precision == "bf16" and not has_bf16:
            continue
        if not (models / case.model).exists():
            make_model(models / case.model, case.model)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=models))
        run, plan = make_run(folder, models / case.model, case, num_steps=NUM_STEPS)
        print(row(case, plan, measured_step(run, plan, folder / "work")), flush=True)
        shutil.rmtree(folder)
    shutil.rmtree(models)


if __name__ == "__main__":
    main()
