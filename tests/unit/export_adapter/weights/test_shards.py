"""Weights out of ZeRO-2 shards are those that DeepSpeed's own tool gives, without its copy of all
of them."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

from components.export_adapter.weights.shards import InShards, in_shards

STEP = "global_step10"
SHAPES = [
    OrderedDict(a=torch.Size([3, 5]), b=torch.Size([7]), c=torch.Size([4, 4])),
    OrderedDict(d=torch.Size([9]), e=torch.Size([2, 3])),
]
"""Of two groups: 38 and 15 parameters, so that weights lie across the borders of shards."""


def write_checkpoint(folder: Path, *, num_ranks: int) -> Path:
    """As DeepSpeed writes it, filled up to a multiple of twice the ranks. Returns the step's
    folder."""
    step = folder / STEP
    step.mkdir(parents=True)
    (folder / "latest").write_text(STEP)
    partitions: list[list[torch.Tensor]] = [[] for _ in range(num_ranks)]
    for number, shapes in enumerate(SHAPES):
        used = sum(shape.numel() for shape in shapes.values())
        flat = torch.zeros(-(-used // (2 * num_ranks)) * 2 * num_ranks)
        flat[:used] = torch.arange(used) + 100.0 * number
        for rank, part in enumerate(flat.chunk(num_ranks)):
            partitions[rank].append(part.clone())
    for rank, parts in enumerate(partitions):
        state = {
            "zero_stage": 2,
            "partition_count": num_ranks,
            "single_partition_of_fp32_groups": parts,
        }
        file = step / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        torch.save({"optimizer_state_dict": state, "ds_version": "0.19.8"}, file)
    model: dict[str, Any] = {
        "module": {"rotary": torch.tensor([0.5, 0.25])},
        "buffer_names": ["rotary"],
        "param_shapes": SHAPES,
        "shared_params": {"head": "c"},
        "ds_version": "0.19.8",
    }
    torch.save(model, step / "mp_rank_00_model_states.pt")
    return step


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_each_weight_is_what_deepspeeds_own_tool_gives(tmp_path: Path, num_ranks: int) -> None:
    step = write_checkpoint(tmp_path, num_ranks=num_ranks)
    expected = get_fp32_state_dict_from_zero_checkpoint(str(tmp_path))
    found = in_shards(step)
    assert expected is not None
    assert set(found) == set(expected) == {"a", "b", "c", "d", "e", "head", "rotary"}
    for name, tensor in expected.items():
        assert torch.equal(found[name].contiguous(), tensor), name


def test_a_weight_takes_no_memory_until_it_is_asked_for(tmp_path: Path) -> None:
    found = in_shards(write_checkpoint(tmp_path, num_ranks=2))
    assert all(isinstance(found[name], InShards) for name in "abcde")
    assert found["c"].start == 22
    assert found["a"].contiguous().untyped_storage().nbytes() == 4 * 15
