"""One process's share of a checkpoint, for tests and benchmarks that store one."""

from pathlib import Path
from typing import Any

from components.train.checkpoints.commit import Part


def example_part(files: Path, names: tuple[str, ...], **fields: Any) -> Part:
    """Of epoch 1 and one process, with the files of these names in folder `files`; `fields`
    replace the part's own."""
    given = {
        "epoch": 1,
        "step": 1,
        "attempt": "a1",
        "process_rank": 0,
        "num_processes": 1,
        "zero_stage": 3,
        "training": "t",
        "loss": 1.0,
        "held_out_loss": 2.0,
        "steps_per_epoch": 1,
        "micro_batch": 1,
    }
    return Part(**{**given, **fields}, root=str(files), names=names)
