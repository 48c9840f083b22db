"""Shards of ZeRO 1 or 2 -> every weight, each read when it is asked for.

DeepSpeed's own tool first joins all shards, in fp32 (`XXX: memory usage doubles here` in
deepspeed/utils/zero_to_fp32.py of 0.19.8), 4 bytes a parameter. Here it joins shards without
content, which says where each weight lies; the content stays mapped from the files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepspeed.utils import zero_to_fp32


@dataclass(frozen=True)
class InShards:
    """A weight within shards that lie one behind the other."""

    shards: Sequence[torch.Tensor]
    """Flat, fp32, mapped from their files."""
    start: int
    shape: torch.Size

    @property
    def dtype(self) -> torch.dtype:
        return self.shards[0].dtype

    def contiguous(self) -> torch.Tensor:
        """A copy in memory."""
        return torch.cat([self.shards[0][:0], *self._parts()]).view(self.shape)

    def _parts(self) -> Iterator[torch.Tensor]:
        begin, end = self.start, self.start + self.shape.numel()
        for shard in self.shards:
            yield shard[max(begin, 0) : max(end, 0)]
            begin, end = begin - shard.numel(), end - shard.numel()


def in_shards(folder: Path) -> dict[str, Any]:
    """Every weight by its name in the model; buffers and frozen weights as tensors. `folder` is the
    step's, such as global_step10."""
    models = zero_to_fp32.parse_model_states(zero_to_fp32.get_model_state_files(str(folder)))
    files = zero_to_fp32.get_optim_files(str(folder))
    _, num_ranks, by_rank, paddings = zero_to_fp32.parse_optim_states(files, str(folder))
    empty = [[torch.empty_like(shard, device="meta") for shard in shards] for shards in by_rank]
    placed = zero_to_fp32._get_fp32_state_dict_from_zero2_checkpoint(
        num_ranks, empty, models, False, paddings
    )
    groups = {
        name: number for number, shapes in enumerate(models[0].param_shapes) for name in shapes
    }
    groups |= {other: groups[name] for other, name in models[0].shared_params if name in groups}
    return {
        name: _placed(tensor, [shards[groups[name]] for shards in by_rank])
        if tensor.is_meta
        else tensor
        for name, tensor in placed.items()
    }


def _placed(tensor: torch.Tensor, shards: Sequence[torch.Tensor]) -> InShards:
    return InShards(shards, start=int(tensor.storage_offset()), shape=tensor.shape)
