from types import SimpleNamespace

from components.train.checkpoints.saving import _with_own_scale


def test_the_loss_scale_of_a_checkpoint_is_that_of_its_step() -> None:
    """It changes before the next optimizer step, which else waits until the checkpoint is written."""
    scaler = SimpleNamespace(cur_scale=65536.0)
    state = {"optimizer_state_dict": {"loss_scaler": scaler, "zero_stage": 3}, "ds_version": "0"}
    captured = _with_own_scale(state)
    scaler.cur_scale /= 2
    assert captured["optimizer_state_dict"]["loss_scaler"].cur_scale == 65536.0
    assert captured["optimizer_state_dict"]["zero_stage"] == 3
    assert _with_own_scale({"module": {}}) == {"module": {}}
