from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from components.train.agreement import Agreement


@pytest.fixture
def devices_only(tmp_path: Path) -> Iterator[None]:
    """As NCCL: the processes' usual way to talk takes no tensor that lies on the CPU."""
    dist.init_process_group("cuda:gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("devices_only")
def test_processes_of_gpus_agree_on_the_cpu() -> None:
    with pytest.raises(RuntimeError):
        dist.all_reduce(torch.zeros(1))
    agreement = Agreement()
    assert agreement.anywhere(True, False) == (True, False)
    assert agreement.sum(torch.tensor([1.5, 2.0], dtype=torch.float64)).tolist() == [1.5, 2.0]
