"""The measured training of `benchmarks.checkpoint`: real steps, whose saves alternate between
hagane's way and one in line.

Started by torchrun like components.train, on a run with finished dataset/ and plan/. Prints one
JSON line: what was measured.
"""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.log import set_up_log
from components.shared.model.source import resolve_planned_model
from components.train.__main__ import (
    Job,
    join_processes,
    leave_processes,
    planned,
    prepare_job,
    training_arguments,
)
from components.train.checkpoints.commit import Part, store_part
from components.train.checkpoints.saving import CheckpointSaver, write_small_files
from components.train.checkpoints.uploader import BackgroundUploads
from components.train.loop.rows import PackedRows
from components.train.loop.trainer import HaganeTrainer
from components.train.model.loading import load_model


class StepTimes(TrainerCallback):
    """Seconds of each optimizer step, without what a save at its end holds: those beside an upload
    from begin to end, and those beside none. The first epoch is not counted."""

    def __init__(self, uploads: BackgroundUploads, endless: "EndlessUpload") -> None:
        self._uploads = uploads
        self._endless = endless
        self._began = 0.0
        self._quiet = False
        self.with_upload: list[float] = []
        self.without: list[float] = []

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._quiet = self._uploads.num_unfinished == 0
        self._began = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        seconds = time.monotonic() - self._began
        if self._endless.runs:
            self.with_upload.append(seconds)
        elif self._quiet and self._uploads.num_unfinished == 0 and (state.epoch or 0) > 1:
            self.without.append(seconds)


class EndlessUpload(TrainerCallback):
    """In every second epoch from the third on, the files of the save in line are uploaded by
    hagane's uploader over and over."""

    def __init__(self, uploads: BackgroundUploads, in_line: "InLine") -> None:
        self._uploads = uploads
        self._in_line = in_line
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.num_uploads = 0

    @property
    def runs(self) -> bool:
        return self._thread is not None

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        epoch = 1 + round(state.epoch or 0)
        if epoch >= 3 and epoch % 2:
            self._stop.clear()
            self._thread = threading.Thread(target=self._upload)
            self._thread.start()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            while self._uploads.num_unfinished:
                time.sleep(0.01)

    def _upload(self) -> None:
        part = self._in_line.part
        assert part is not None
        while not self._stop.is_set():
            self.num_uploads += 1
            root = Path(
                f"{part.root}-{self.num_uploads}"
            )  # the uploader removes what it has stored
            shutil.copytree(part.root, root, copy_function=os.link)
            # No manifest: the other processes' parts never come.
            again = {"root": str(root), "attempt": f"again-{self.num_uploads}", "num_processes": 99}
            self._uploads.submit(part.model_copy(update=again))


class InLine:
    """The save that training waits for: write, then upload with the same client to the same
    store."""

    def __init__(self, job: Job, saver: CheckpointSaver) -> None:
        self._job = job
        self._saver = saver
        self.part: Part | None = None

    def save(self, trainer: HaganeTrainer) -> float:
        start = time.monotonic()
        root = Path(str(trainer.args.output_dir), "in-line")
        writes = self._saver.capture(trainer)
        names = (*writes, *write_small_files(trainer, root, probe=None))
        for name, write in writes.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            write(root / name)
        self.part = self._saver.part_of(trainer, root, names)
        store_part(
            self._job.store,
            self.part.model_copy(update={"attempt": "in-line", "num_processes": 99}),
        )
        return time.monotonic() - start


def main() -> None:
    log = set_up_log("train")
    agreement = join_processes(planned(sys.argv[1]))
    job = prepare_job(sys.argv[1], log)
    arguments = training_arguments(job)
    if job.plan.lora is None:
        lora = None
    else:
        lora = json.loads((job.work / "plan" / "lora.json").read_bytes())
    model = load_model(
        resolve_planned_model(job.plan).folder, job.plan, lora=lora, seed=job.spec.training.seed
    )
    trainer = HaganeTrainer(model, arguments, PackedRows(job.work / "dataset" / "train.parquet"))
    uploads = BackgroundUploads(job.run, log)
    saver = CheckpointSaver(job.plan, attempt=job.attempt, uploads=uploads, agreement=agreement)
    in_line, held_s, in_line_s = InLine(job, saver), [], []
    endless = EndlessUpload(BackgroundUploads(job.run, log), in_line)
    times = StepTimes(uploads, endless)

    def save() -> None:
        epoch = trainer.state.global_step // job.plan.steps.steps_per_epoch
        trainer.state.log_history.append(
            {"held_out_loss": 1.0, "held_out_epoch": epoch, "step": trainer.state.global_step}
        )
        if epoch % 2:
            in_line_s.append(in_line.save(trainer))
        else:
            held_s.append(
                saver.take_held_s()
            )  # what the step before still waited belongs to the save before
            saver.save(trainer)

    trainer.save = save
    trainer.add_callback(times)
    trainer.add_callback(endless)
    trainer.train()
    held_s = [*held_s[1:], saver.take_held_s()]
    saver.finish(log)
    if dist.get_rank() == 0:
        steps = {
            "with_upload_s": times.with_upload,
            "without_s": times.without,
            "num_uploads": endless.num_uploads,
        }
        print(json.dumps({"held_s": held_s, "in_line_s": in_line_s, **steps}))
    leave_processes(agreement)


if __name__ == "__main__":
    main()
