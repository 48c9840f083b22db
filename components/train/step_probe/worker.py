"""The probe's program in each training process: the plan's model, four steps, no checkpoint.

Started by torchrun, with the folder that `write_probe_files` has filled. Process 0 reports the
event `probed`.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.documents.plan import Plan
from components.shared.documents.probe import MeasuredSteps
from components.shared.model.source import resolve_planned_model
from components.shared.pickled import open_listed_classes_only
from components.shared.processes import end_with_parent
from components.shared.step import step_log
from components.train.__main__ import end_by_error, join_processes, leave_processes, new_trainer
from components.train.loop.engine import EngineSetup
from components.train.loop.environment import environment
from components.train.loop.parts import TimeParts
from components.train.loop.results import peak_memory
from components.train.loop.rows import PackedRows, unpack_rows
from components.train.model.loading import load_model
from components.train.step_probe.probe_files import ROWS, write_random_rows
from components.train.step_probe.probe_size import TIMED_STEPS


class StepEnds(TrainerCallback):
    """When each optimizer step ended, by `time.perf_counter`, the device's work included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of each step but the first, which has no step before it."""
        pairs = zip(self.ends[:-1], self.ends[1:], strict=True)
        return tuple(round(end - begin, 4) for begin, end in pairs)


def measured_steps(folder: Path, plan: Plan, *, label_smoothing: float) -> MeasuredSteps:
    """All processes have made the steps. Every process must call this."""
    from_dataset = (folder / ROWS).is_file()
    dist.barrier()
    base = resolve_planned_model(plan)
    if int(os.environ["LOCAL_RANK"]) == 0:
        if not from_dataset:
            write_random_rows(plan, base.folder, folder / ROWS)
        unpack_rows(folder / ROWS)
    dist.barrier()
    rows = PackedRows(folder / ROWS)
    arguments = _training_arguments(folder)
    lora_file = folder / "lora.json"
    if lora_file.is_file():
        lora = json.loads(lora_file.read_bytes())
    else:
        lora = None
    model = load_model(base.folder, plan, lora=lora, seed=arguments.seed)
    trainer = new_trainer(model, arguments, rows, plan, label_smoothing=label_smoothing)
    ends = StepEnds()

    def engine() -> Any:
        return trainer.model_wrapped

    trainer.add_callback(EngineSetup(engine, seed=arguments.seed))
    trainer.add_callback(TimeParts(trainer.times, engine))
    trainer.add_callback(ends)
    trainer.train()
    peak, facts = peak_memory(), environment()
    return MeasuredSteps(
        device=facts.get("GPU", facts["processor"]),
        num_processes=dist.get_world_size(),
        rows="dataset" if from_dataset else "random",
        tokens_per_row=sum(len(rows[index]["input_ids"]) for index in range(len(rows))) / len(rows),
        grad_accum=arguments.gradient_accumulation_steps,
        step_seconds=ends.seconds,
        optimizer_seconds=_optimizer_seconds(trainer.state.log_history),
        peak_host_bytes=peak.node,
        peak_gpu_bytes=peak.gpu,
    )


def _training_arguments(folder: Path) -> TrainingArguments:
    settings = json.loads((folder / "training_args.json").read_bytes())
    return TrainingArguments(
        output_dir=str(folder / "nothing"),
        deepspeed=json.loads((folder / "deepspeed.json").read_bytes()),
        use_cpu=not torch.cuda.is_available(),
        **settings,
    )


def _optimizer_seconds(history: list[dict[str, Any]]) -> float:
    """Median over the timed steps, which are the last."""
    took = [entry["part_seconds"] for entry in history if "part_seconds" in entry]
    return round(statistics.median(parts["optimizer"] for parts in took[-TIMED_STEPS:]), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    asked = parser.parse_args()
    folder = asked.folder
    end_with_parent()
    open_listed_classes_only()
    with step_log("train") as log:
        plan = Plan.model_validate_json((folder / "plan.json").read_bytes())
        try:
            agreement = join_processes(plan)
            measured = measured_steps(folder, plan, label_smoothing=asked.label_smoothing)
        except (RuntimeError, MemoryError, OSError) as error:
            end_by_error(error, log)
            raise
        if dist.get_rank() == 0:
            log.info("probed", **measured.model_dump(mode="json"))
        leave_processes(agreement)


if __name__ == "__main__":
    main()
