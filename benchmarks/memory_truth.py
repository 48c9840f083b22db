"""`python -m benchmarks.memory_truth [WORD …]`: plans small trainings, runs them on this machine, and sets peak memory beside the plan.

A model of random weights, rows of random tokens; plan and training are hagane's own programs. What is measured is each training
process's peak resident memory (VmHWM), added up; DeepSpeed's own estimate of the same stands beside. Needs 12 GB and some ten minutes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.launch_training.local import torchrun_command, worker_settings
from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.shared.layout import DATASET, SPEC
from components.shared.manifest import publish_folder
from components.shared.plan import Plan
from components.shared.spec import CheckpointSpec, RunSpec
from components.shared.spec_file import parse_spec, spec_yaml
from components.shared.storage import LocalStore

VOCABULARY = 32_000
SHAPES: dict[str, dict[str, Any]] = {
    "llama-30M": {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 8, "num_attention_heads": 5},
    "llama-135M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "llama-350M": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 22, "num_attention_heads": 16},
    "gpt_neox-30M": {"hidden_size": 320, "intermediate_size": 1280, "num_hidden_layers": 8, "num_attention_heads": 5},
    "gpt_neox-160M": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 15, "num_attention_heads": 12},
    "gpt_neox-350M": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 22, "num_attention_heads": 16},
}


@dataclass(frozen=True)
class Case:
    model: str
    method: str
    stage: int
    offload: bool
    processes: int
    row_tokens: int = 256
    checkpointing: bool = False

    @property
    def name(self) -> str:
        offload = "+offload" if self.offload else ""
        again = " checkpointing" if self.checkpointing else ""
        return f"{self.model} {self.method} ZeRO-{self.stage}{offload} {self.processes}p {self.row_tokens}t{again}"


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
)


def config_of(model: str) -> dict[str, Any]:
    fixed = {"vocab_size": VOCABULARY, "max_position_embeddings": 2048, "tie_word_embeddings": False}
    return {"model_type": model.partition("-")[0], **fixed, **SHAPES[model]}


def make_model(folder: Path, model: str) -> None:
    """Random fp32 weights; made by a process of its own, so that this one stays small."""
    program = (
        "import sys, json, torch; from transformers import AutoConfig, AutoModelForCausalLM;"
        "fields = json.loads(sys.argv[2]); config = AutoConfig.for_model(fields.pop('model_type'), **fields);"
        "AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(folder), json.dumps(config_of(model))], check=True)


def spec_of(folder: Path, base: Path, case: Case) -> RunSpec:
    """Two optimizer steps of two rows a process."""
    zero = {"stage": case.stage, "offload_optimizer": "cpu" if case.offload else "none"}
    zero["offload_parameters"] = "cpu" if case.offload and case.stage == 3 else "none"
    return parse_spec(
        {
            "name": "truth",
            "store": str(folder / "store"),
            "model": {"source": str(base)},
            "data": {"train": "none.jsonl", "row_tokens": case.row_tokens},
            "training": {
                "method": case.method,
                "precision": "fp32",
                "epochs": 1,
                "micro_batch": 1,
                "global_batch": 2 * case.processes,
                "gradient_checkpointing": case.checkpointing,
            },
            "lora": {"rank": 16},
            "zero": zero,
            "hardware": {"processes_per_node": case.processes},
        }
    )


def make_run(folder: Path, base: Path, case: Case) -> tuple[str, Plan]:
    """URI and plan of a run whose dataset/ and plan/ are finished."""
    rows, spec = 4 * case.processes, spec_of(folder, base, case)
    store = LocalStore(Path(spec.run_uri))
    store.write_bytes(SPEC, spec_yaml(spec).encode())
    made = [{"input_ids": [(7 * i + r) % VOCABULARY for i in range(case.row_tokens)], "lengths": [case.row_tokens]} for r in range(rows)]
    table = pa.Table.from_pylist([{**row, "labels": row["input_ids"]} for row in made])
    local = folder / "dataset"
    local.mkdir()
    pq.write_table(table, local / "train.parquet")
    pq.write_table(table.slice(0, 1), local / "held_out.parquet")
    facts = {"num_rows": rows, "num_tokens": rows * case.row_tokens, "row_tokens": case.row_tokens, "model_revision": None}
    publish_folder(store, DATASET, local, made_by="prepare_dataset", inputs={}, facts=facts)
    subprocess.run([sys.executable, "-m", "components.render_config", "--run", spec.run_uri], check=True, stdout=subprocess.DEVNULL)
    return spec.run_uri, Plan.model_validate_json((Path(spec.run_uri) / "plan" / "plan.json").read_bytes())


def measured_peak(run: str, plan: Plan, work: Path) -> list[int]:
    """Trains, and returns the peak resident bytes of each training process."""
    environment = os.environ | worker_settings(plan, CheckpointSpec()) | {"HAGANE_WORK": str(work)}
    with (work.parent / "train.log").open("w") as log:
        process = subprocess.Popen(torchrun_command(run, plan), env=environment, stdout=log, stderr=subprocess.STDOUT)
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
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
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
        "import sys; from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as three;"
        "from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as two;"
        "p, l, n, off, stage = map(int, sys.argv[1:]);"
        "cpu, gpu, *_ = three(p, l, n, 1, bool(off), bool(off), True) if stage == 3 else two(p, n, 1, bool(off));"
        "print(int(cpu + n * gpu))"
    )
    model = plan.model
    arguments = (model.num_parameters, model.largest_layer_parameters, case.processes, int(case.offload), case.stage)
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def row(name: str, plan: Plan, measured: int, rival: int) -> str:
    """One line of the table; host memory of the node, all processes together."""
    assert plan.memory is not None
    predicted = plan.memory.host_bytes
    figures = (f"{each / 2**30:.2f} GiB" for each in (predicted, measured))
    return f"| {name} | {' | '.join(figures)} | {predicted / measured - 1:+.0%} | {rival / 2**30:.2f} GiB | {rival / measured - 1:+.0%} |"


def predict_again(file: Path) -> None:
    """The table of runs measured before, by what the plan says now."""
    for line in file.read_text().splitlines():
        found = json.loads(line)
        case = next(case for case in CASES if case.name == found["case"])
        facts = DatasetFacts(digest="", num_rows=4 * case.processes, num_tokens=4 * case.processes * case.row_tokens, model_revision=None)
        plan = make_plan(spec_of(Path(), Path(case.model), case), facts, config_of(case.model), machine=Machine())
        print(row(case.name, plan, sum(found["peaks"]), found["deepspeed"]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_truth", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="run only cases whose name has all of these")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also add what was measured here, one JSON a line")
    parser.add_argument("--again", type=Path, metavar="FILE", help="train nothing: predict anew what --out measured")
    arguments = parser.parse_args()
    print("| run | predicted | measured | difference | DeepSpeed's estimate | its difference |\n|---|---|---|---|---|---|", flush=True)
    if arguments.again:
        predict_again(arguments.again)
        return
    models = Path(tempfile.mkdtemp(prefix="hagane-truth-"))
    for case in (case for case in CASES if all(word in case.name for word in arguments.words)):
        if not (models / case.model).exists():
            make_model(models / case.model, case.model)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=models))
        run, plan = make_run(folder, models / case.model, case)
        peaks = measured_peak(run, plan, folder / "work")
        rival = deepspeed_estimate(plan, case)
        print(row(case.name, plan, sum(peaks), rival), flush=True)
        if arguments.out:
            with arguments.out.open("a") as out:
                out.write(json.dumps({"case": case.name, "peaks": peaks, "deepspeed": rival}) + "\n")
        shutil.rmtree(folder)
    shutil.rmtree(models)


if __name__ == "__main__":
    main()
