"""`make bench-start`: where the time goes from `torchrun` to the first step, by part.

A tiny Llama and one of SmolLM2-135M's shape with random weights, each trained by 1 and 2 processes
(LoRA, bf16, ZeRO-3 with both offloads). `launcher` is torchrun before it starts the process; the
other parts are reported by the training itself (components/train/loop/start_up.py). A machine that
does other work makes every part longer: compare runs that took turns, by their ratio.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.small_runs import SMOLLM2, Case, make_model, make_run
from components.shared.documents.plan import Plan
from components.shared.events import event_of

MODELS = ("llama-4M", SMOLLM2)


def start_up_of(run: str, plan: Plan, work: Path) -> dict[str, float]:
    """Seconds of each part of one start, the launcher's first."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(Path(run, "checkpoints"), ignore_errors=True)
    processes = plan.steps.num_processes
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "components.train", run]
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    environment = {"HAGANE_WORK": str(work), "HAGANE_LOG": "json", "OMP_NUM_THREADS": str(threads)}
    found: dict[str, float] = {}
    start = time.monotonic()
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    ) as training:
        assert training.stdout is not None
        for event in filter(None, map(event_of, training.stdout)):
            if event["event"] == "failed":
                raise RuntimeError(event["problems"])
            if event["event"] == "started_up":
                passed = time.monotonic() - start
                parts = {key: value for key, value in event.items() if isinstance(value, float)}
                in_process = parts.pop("seconds")
                found = {"launcher": passed - in_process, **parts}
        training.stdout.read()
    if training.returncode:
        raise RuntimeError(f"the training ended with exit code {training.returncode}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_up", description=__doc__)
    parser.add_argument("words", nargs="*", help="run only cases whose name has all of these")
    parser.add_argument("--starts", type=int, default=3, help="of each case; the median is printed")
    asked = parser.parse_args()
    models = Path(tempfile.mkdtemp(prefix="hagane-start-"))
    for model in MODELS:
        for processes in (1, 2):
            case = Case(model, "lora", 3, True, processes, precision="bf16")
            if not all(word in case.name for word in asked.words):
                continue
            if not (models / model).exists():
                make_model(models / model, model)
            print_case(case, models, asked.starts)
    shutil.rmtree(models)


def print_case(case: Case, models: Path, num_starts: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=models))
    run, plan = make_run(folder, models / case.model, case, num_steps=2)
    starts = [start_up_of(run, plan, folder / "work") for _ in range(num_starts)]
    load = os.getloadavg()[0]
    print(f"\n{case.name}: median of {num_starts} starts, load {load:.1f}", flush=True)
    for part in starts[0]:
        print(f"  {part:14} {statistics.median(each[part] for each in starts):7.2f} s")
    total = statistics.median(sum(each.values()) for each in starts)
    print(f"  {'to first step':14} {total:7.2f} s", flush=True)
    print(json.dumps({"case": case.name, "load": load, "starts": starts}), flush=True)


if __name__ == "__main__":
    main()
