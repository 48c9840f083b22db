from pathlib import Path

import pytest
import torch

from components.train.checkpoints.resume import (
    map_files,
    move_out_of_files,
    restore_group_settings,
    separate_steps,
)
from tests.crash.host_tensors import HostTensor


def test_after_a_resume_each_step_is_where_its_parameter_is_and_its_own() -> None:
    """The meta device stands for a GPU. DeepSpeed leaves one CPU tensor there for all."""
    shared_step = torch.tensor(7.0)
    on_device, on_host = (
        torch.nn.Parameter(torch.empty(3, device="meta")),
        torch.nn.Parameter(torch.empty(3)),
    )
    optimizer = torch.optim.AdamW([on_device, on_host])
    for parameter in (on_device, on_host):
        optimizer.state[parameter] = {"step": shared_step}
    separate_steps(optimizer)
    assert optimizer.state[on_device]["step"].device == torch.device("meta")
    assert optimizer.state[on_host]["step"].device == torch.device("cpu")
    assert optimizer.state[on_host]["step"] == 7
    assert optimizer.state[on_host]["step"] is not shared_step


def test_groups_have_their_own_weight_decay_and_learning_rate_again(tmp_path: Path) -> None:
    (tmp_path / "latest_universal").write_text("global_step2_universal")
    zero = tmp_path / "global_step2_universal" / "zero"
    zero.mkdir(parents=True)
    saved = [{"weight_decay": 0.1, "lr": 0.01}, {"weight_decay": 0.0, "lr": 0.16}]
    saved = {"optimizer_state_dict": {"param_groups": saved}}
    torch.save(saved, zero / "optimizer_state.pt")
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": 0.1} for _ in range(2)
    ]
    optimizer = torch.optim.AdamW(groups)
    restore_group_settings(optimizer, tmp_path)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.16]


def test_the_crash_suites_device_refuses_a_step_on_the_host() -> None:
    """As CUDA's kernel does; a copy on the host stays there, `to` moves it."""
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    optimizer = torch.optim.AdamW([parameter], fused=True)
    optimizer.step()
    state = optimizer.state[parameter]
    state["step"] = state["step"].as_subclass(HostTensor).clone()
    with pytest.raises(RuntimeError, match=r"cuda:0 and cpu.*argument state_steps"):
        optimizer.step()
    separate_steps(optimizer)
    optimizer.step()
    assert type(state["step"]) is torch.Tensor


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind, proc(5): what a container's limit cannot
    get back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def test_a_shard_takes_no_memory_of_the_host_while_it_is_loaded(tmp_path: Path) -> None:
    """On a GPU nothing of it stays there; read whole it is 12 bytes a trained parameter on top of
    all else."""
    num_bytes = 128 * 2**20
    torch.save({"exp_avg": torch.ones(num_bytes // 4)}, tmp_path / "shard.pt")
    before = anonymous_bytes()
    map_files(when=True)
    try:
        loaded = torch.load(tmp_path / "shard.pt", map_location="cpu", weights_only=True)
    finally:
        map_files(when=False)
    assert float(loaded["exp_avg"].sum()) == num_bytes // 4
    assert anonymous_bytes() - before < num_bytes // 8


def test_offloaded_moments_are_in_no_file_when_training_begins(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(1000))
    torch.save({"exp_avg": torch.ones(1000)}, tmp_path / "shard.pt")
    optimizer = torch.optim.AdamW([parameter])
    optimizer.state[parameter] = torch.load(tmp_path / "shard.pt", mmap=True)
    assert "shard.pt" in Path("/proc/self/maps").read_text()
    move_out_of_files(optimizer)
    assert "shard.pt" not in Path("/proc/self/maps").read_text()
    assert optimizer.state[parameter]["exp_avg"].sum() == 1000
