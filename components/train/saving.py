"""After each local save: hand this process's own files to its uploader, without waiting for any other process."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.train.commit import Part, owner
from components.train.trainer import epoch_losses
from components.train.uploader import BackgroundUploads


class StoreCheckpoints(TrainerCallback):
    """Submits the process's files of `checkpoint-<step>` at the end of each epoch.

    Trainer calls on_save when this process's files are written; others may still be writing theirs, so only own files
    are looked at. `plan` is the digest of plan/, `attempt` is one start of the job, the same on all processes.
    """

    def __init__(self, uploads: BackgroundUploads, *, plan: str, attempt: str, steps_per_epoch: int) -> None:
        self._uploads = uploads
        self._plan = plan
        self._attempt = attempt
        self._steps_per_epoch = steps_per_epoch

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        root = Path(str(args.output_dir), f"checkpoint-{state.global_step}")
        # DeepSpeed drops two scripts of its own beside its shards; export_adapter has them from the library.
        files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".py")
        names = sorted(path.relative_to(root).as_posix() for path in files)
        epoch = -(-state.global_step // self._steps_per_epoch)
        loss, held_out = epoch_losses(state.log_history, steps_per_epoch=self._steps_per_epoch, epoch=epoch)
        self._uploads.submit(
            Part(
                epoch=epoch,
                step=state.global_step,
                attempt=self._attempt,
                process_rank=args.process_index,
                num_processes=args.world_size,
                plan=self._plan,
                loss=loss,
                held_out_loss=held_out,
                root=str(root),
                names=tuple(name for name in names if (owner(name) or 0) == args.process_index),
            )
        )
