from types import SimpleNamespace

import torch

from components.train.checkpoints.saving import (
    _with_own_scale,
    _without_frozen,
    frozen_names,
)


def test_the_loss_scale_of_a_checkpoint_is_that_of_its_step() -> None:
    """It changes before the next optimizer step, which else waits until the checkpoint is
    written."""
    scaler = SimpleNamespace(cur_scale=65536.0)
    state = {"optimizer_state_dict": {"loss_scaler": scaler, "zero_stage": 3}, "ds_version": "0"}
    captured = _with_own_scale(state)
    scaler.cur_scale /= 2
    assert captured["optimizer_state_dict"]["loss_scaler"].cur_scale == 65536.0
    assert captured["optimizer_state_dict"]["zero_stage"] == 3
    assert _with_own_scale({"module": {}}) == {"module": {}}


def test_a_frozen_head_that_is_tied_to_the_embeddings_is_in_no_checkpoint() -> None:
    """DeepSpeed leaves out each frozen weight once, and a tied one has two names."""
    model = torch.nn.ModuleDict(
        {
            "embeddings": torch.nn.Embedding(8, 4),
            "lora_A": torch.nn.Linear(4, 2, bias=False),
            "head": torch.nn.Linear(4, 8, bias=False),
        }
    )
    model["head"].weight = model["embeddings"].weight
    model["embeddings"].weight.requires_grad_(False)
    as_deepspeed_saves = model.state_dict()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            del as_deepspeed_saves[name]
    assert set(as_deepspeed_saves) == {"lora_A.weight", "head.weight"}
    kept = _without_frozen({"module": as_deepspeed_saves}, frozen_names(model))
    assert set(kept["module"]) == {"lora_A.weight"}
