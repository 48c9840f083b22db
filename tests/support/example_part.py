"""One process's share of a checkpoint, for tests that store one."""

from pathlib import Path
from typing import Any

from components.shared.documents.checkpoint import CheckpointFacts
from components.train.checkpoints.commit import Part


def example_part(
    files: Path, names: tuple[str, ...], *, attempt: str = "a1", process_rank: int = 0, **facts: Any
) -> Part:
    """Of epoch 1 and one process, with the files of these names in folder `files`; `facts`
    replace those of the checkpoint."""
    given = {
        "epoch": 1,
        "step": 1,
        "num_processes": 1,
        "zero_stage": 3,
        "loss": 1.0,
        "held_out_loss": 2.0,
        "steps_per_epoch": 1,
        "micro_batch": 1,
    }
    return Part(
        facts=CheckpointFacts(**{**given, **facts}),
        attempt=attempt,
        process_rank=process_rank,
        training="t",
        root=str(files),
        names=names,
    )
