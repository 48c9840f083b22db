"""The measured training of `benchmarks.checkpoint`: real steps, whose saves alternate between hagane's way and one in line.

Started by torchrun like components.train, on a run with finished dataset/ and plan/. Prints one JSON line: what was measured.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.log import set_up_log
from components.shared.model_source import resolve_planned_model
from components.train.__main__ import Job, join_processes, leave_processes, prepare_job, training_arguments
from components.train.agreement import Agreement
from components.train.commit import store_part
from components.train.model import load_model
from components.train.rows import PackedRows
from components.train.saving import CheckpointSaver, write_small_files
from components.train.trainer import HaganeTrainer
from components.train.uploader import BackgroundUploads


class StepTimes(TrainerCallback):
    """Seconds of each optimizer step, without what a save at its end holds, and whether an upload was running."""

    def __init__(self, uploads: BackgroundUploads) -> None:
        self._uploads = uploads
        self._began = 0.0
        self.with_upload: list[float] = []
        self.without: list[float] = []

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began = time.monotonic()
        self._uploading = self._uploads.num_unfinished > 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        both = self._uploading and self._uploads.num_unfinished > 0
        if both or not self._uploading:
            (self.with_upload if both else self.without).append(time.monotonic() - self._began)


class InLine:
    """The save that training waits for: write, then upload with the same client to the same store."""

    def __init__(self, job: Job, saver: CheckpointSaver) -> None:
        self._job = job
        self._saver = saver

    def save(self, trainer: HaganeTrainer) -> float:
        start = time.monotonic()
        root = Path(str(trainer.args.output_dir), "in-line")
        writes = self._saver.capture(trainer)
        names = (*writes, *write_small_files(trainer, root))
        for name, write in writes.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            write(root / name)
        part = self._saver.part_of(trainer, root, names)
        store_part(self._job.store, part.model_copy(update={"attempt": "in-line", "num_processes": 99}))
        return time.monotonic() - start


def main() -> None:
    log = set_up_log("train")
    join_processes()
    job = prepare_job(sys.argv[1], log)
    arguments = training_arguments(job)
    lora = None if job.plan.lora is None else json.loads((job.work / "plan" / "lora.json").read_bytes())
    model = load_model(
        resolve_planned_model(job.plan).folder, job.plan, lora=lora, seed=job.spec.training.seed, zero_stage=job.spec.zero.stage
    )
    trainer = HaganeTrainer(model, arguments, PackedRows(job.work / "dataset" / "train.parquet"))
    uploads = BackgroundUploads(job.run, log)
    saver = CheckpointSaver(job.plan, attempt=job.attempt, uploads=uploads, agreement=Agreement())
    times, in_line, held_s, in_line_s = StepTimes(uploads), InLine(job, saver), [], []

    def save() -> None:
        epoch = trainer.state.global_step // job.plan.steps.steps_per_epoch
        trainer.state.log_history.append({"held_out_loss": 1.0, "held_out_epoch": epoch, "step": trainer.state.global_step})
        if epoch % 2:
            in_line_s.append(in_line.save(trainer))
        else:
            held_s.append(saver.take_held_s())  # what the step before still waited belongs to the save before
            saver.save(trainer)

    trainer.save = save
    trainer.add_callback(times)
    trainer.train()
    held_s = [*held_s[1:], saver.take_held_s()]
    saver.finish(log)
    if dist.get_rank() == 0:
        print(json.dumps({"held_s": held_s, "in_line_s": in_line_s, "with_upload_s": times.with_upload, "without_s": times.without}))
    leave_processes()


if __name__ == "__main__":
    main()
