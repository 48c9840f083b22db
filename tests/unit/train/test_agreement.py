from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from components.launch_training.job.deadlines import uploads_s
from components.train import agreement as agreement_module
from components.train.agreement import Agreement, ShortPatience, nccl_patience_s
from tests.support.example_plans import planned_examples


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


@pytest.mark.usefixtures("devices_only")
def test_what_may_wait_for_an_upload_is_asked_on_the_cpu() -> None:
    """NCCL's watchdog would end a process that waits there for longer than ten minutes."""
    agreement = Agreement()
    agreement.wait_for_all()
    assert agreement.from_first("line") == "line"
    assert agreement.of_all(7) == [7]


def test_after_the_first_step_groups_of_nccl_alone_have_a_short_patience(devices_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of devices stands for NCCL's, which no CPU has."""
    usual = dist.get_backend
    monkeypatch.setattr(agreement_module.dist, "get_backend", lambda group=None: "nccl" if group is dist.group.WORLD else usual(group))
    agreement = Agreement()
    callback: Any = ShortPatience(checkpoint_bytes=200_000_000_000)
    callback.on_step_end(None, None, None)
    devices: Any = dist.group.WORLD
    assert devices._get_backend(torch.device("cuda")).options._timeout == timedelta(minutes=50)
    assert agreement._group._get_backend(torch.device("cpu")).options._timeout == agreement_module.default_pg_timeout


def test_nccl_gives_up_before_the_launcher_takes_the_training_for_stalled() -> None:
    """Its abort is a restart with the reason in the log; what the launcher sees is only that nothing happens."""
    assert nccl_patience_s(0) == 600
    num_plans = 0
    for example, spec, plan in planned_examples():
        allowed_s = 60 * spec.cluster.stall_timeout_minutes + uploads_s(plan)
        assert nccl_patience_s(plan.checkpoints.node_bytes) < allowed_s, example
        num_plans += 1
    assert num_plans > 5
