"""What all processes of a job must decide or know alike, at step boundaries; and how long they wait
for each other.

Whatever may wait long, for an upload or for a folder on a slow disk, is asked over gloo, whose
timeout stays DeepSpeed's: half an hour and the way of three checkpoints. NCCL's becomes short after
the first step, so that a peer that hangs without an error (a node without power, a GPU that fell
off the bus) ends these processes, by its watchdog, before the launcher takes the job for stalled.
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.constants import default_pg_timeout
from torch.distributed import distributed_c10d
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

NCCL_PATIENCE_S = 600
"""torch's own default for NCCL; DEEPSPEED_TIMEOUT makes it longer, for downloads before the first
step."""
DISK_BYTES_S = 200e6
"""A slow disk of a node: an optimizer step waits until the checkpoint before it is on the local
disk."""


class Agreement:
    """Asks all processes at once, over gloo: on a GPU the device is not waited for. One round trip
    of a few bytes."""

    def __init__(self) -> None:
        self._group: Any = dist.group.WORLD
        if dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo", timeout=default_pg_timeout)

    def anywhere(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, one or more, whether any process has it set. Every process must ask, with
        equally many."""
        asked = torch.tensor([int(flag) for flag in flags], dtype=torch.uint8)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX, group=self._group)
        return tuple(bool(flag) for flag in asked)

    def sum(self, figures: torch.Tensor) -> torch.Tensor:
        """Of all processes' figures, which lie on the CPU. Every process must ask, with equally
        many."""
        total = figures.clone()
        dist.all_reduce(total, group=self._group)
        return total

    def wait_for_all(self) -> None:
        """Returns when every process has asked. gloo exchanges nothing for a tensor without
        elements, so one is sent."""
        self.anywhere(False)

    def from_first(self, value: Any) -> Any:
        """Process 0's value, on all processes."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def of_all(self, value: Any) -> list[Any]:
        """Every process's value, in the order of their ranks."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values


def nccl_patience_s(checkpoint_bytes: int) -> float:
    """Seconds that NCCL waits for a process after the first step: ten minutes, or three times as
    long as a slow disk takes for the checkpoint of a node, of `checkpoint_bytes`, should that be
    more."""
    return max(NCCL_PATIENCE_S, 3 * checkpoint_bytes / DISK_BYTES_S)


def set_nccl_patience(seconds: float) -> list[dist.ProcessGroup]:
    """Exchanges that begin from now on in a group of NCCL may take so long. Returns those groups;
    gloo's are as they were."""
    groups = [
        group for group in distributed_c10d._world.pg_map if dist.get_backend(group) == "nccl"
    ]
    for group in groups:
        distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)
    return groups


class ShortPatience(TrainerCallback):
    """After the first step of this start, NCCL waits no longer than `nccl_patience_s`."""

    def __init__(self, checkpoint_bytes: int) -> None:
        self._seconds = nccl_patience_s(checkpoint_bytes)
        self._is_set = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not self._is_set:
            set_nccl_patience(self._seconds)
            self._is_set = True
