"""What all processes of a job must decide or know alike, at step boundaries."""

import torch
import torch.distributed as dist
from deepspeed.constants import default_pg_timeout


class Agreement:
    """Asks all processes at once, over gloo: on a GPU the device is not waited for. One round trip of a few bytes."""

    def __init__(self) -> None:
        self._group = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=default_pg_timeout)

    def anywhere(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether any process has it set. Every process must ask, with equally many."""
        asked = torch.tensor([int(flag) for flag in flags], dtype=torch.uint8)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX, group=self._group)
        return tuple(bool(flag) for flag in asked)

    def sum(self, figures: torch.Tensor) -> torch.Tensor:
        """Of all processes' figures, which lie on the CPU. Every process must ask, with equally many."""
        total = figures.clone()
        dist.all_reduce(total, group=self._group)
        return total
