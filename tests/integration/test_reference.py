"""Training as a user calls it, against plain torch; tests/matrix/test_reference.py has the whole matrix."""

from pathlib import Path

import pytest

from tests.support.reference_run import ALL_CLOSE, compare

# peft 0.21.2 asks transformers 5.23 by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def test_full_training_is_that_of_plain_torch(tmp_path: Path) -> None:
    found = compare(tmp_path, zero={"stage": 2})
    assert found.num_rows == 13
    assert found.differences <= ALL_CLOSE


def test_lora_without_zero_is_that_of_plain_torch(tmp_path: Path) -> None:
    found = compare(tmp_path, training={"method": "lora", "max_steps": 3}, zero={"stage": 0})
    assert found.differences <= ALL_CLOSE


def test_conversations_that_a_mask_does_not_keep_apart_attend_by_themselves(tmp_path: Path) -> None:
    found = compare(tmp_path, architecture="gpt_oss", zero={"stage": 2})
    assert (found.num_rows, found.plan["packed"], found.plan["attention"]) == (13, True, "conversations")
    assert found.differences <= ALL_CLOSE


def test_a_model_that_would_mix_packed_conversations_is_trained_on_each_alone(tmp_path: Path) -> None:
    found = compare(tmp_path, architecture="bloom", num_conversations=13, training={"micro_batch": 3}, zero={"stage": 2})
    assert (found.num_rows, found.plan["packed"]) == (13, False)
    assert found.differences <= ALL_CLOSE


def test_one_step_of_training_trains(tmp_path: Path) -> None:
    found = compare(tmp_path, training={"max_steps": 1}, zero={"stage": 2})
    assert found.history["steps"][0]["lr"] == pytest.approx(0.0025)
    assert found.history["epochs"][0]["held_out_loss"] < found.history["start_held_out_loss"]
