import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from components.train.loop.finite import StepFault, StepRecord, fault_line, step_fault, step_fault_text


def record(*losses: float) -> StepRecord:
    """Of micro-batches of two rows: 0 and 1, 10 and 11, …"""
    rows = [torch.tensor([10 * index, 10 * index + 1]) for index in range(len(losses))]
    return StepRecord(rows, [torch.tensor(loss) for loss in losses])


def engine(norm: float | None, *, fp16: bool = False) -> Any:
    return SimpleNamespace(get_global_grad_norm=lambda: norm, fp16_enabled=lambda: fp16)


def test_a_sound_step_has_no_fault() -> None:
    assert step_fault(record(1.0, 2.0), engine(0.5)) is None
    assert step_fault(record(1.0), engine(None)) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_the_rows_of_the_loss_that_is_no_number_are_named(loss: float) -> None:
    assert step_fault(record(1.0, loss, 2.0), engine(math.nan)) == StepFault(loss=True, rows=(10, 11))


def test_a_gradient_that_is_no_number_names_all_rows_of_the_step() -> None:
    assert step_fault(record(1.0, 2.0), engine(math.inf)) == StepFault(loss=False, rows=(0, 1, 10, 11))


def test_a_gradient_that_fp16_skips_is_no_fault() -> None:
    assert step_fault(record(1.0), engine(math.inf, fp16=True)) is None
    assert step_fault(record(math.nan), engine(math.inf, fp16=True)) is not None


def test_the_process_whose_loss_is_no_number_is_the_one_whose_rows_are_told() -> None:
    faults = [StepFault(loss=False, rows=(1, 2)), StepFault(loss=True, rows=(7,))]
    assert step_fault_text(5, faults) == "the loss of step 5 is not finite, in rows 7 of dataset/train.parquet"


def test_many_rows_are_counted() -> None:
    text = step_fault_text(5, [StepFault(loss=False, rows=tuple(range(20)))])
    assert "gradient of step 5" in text
    assert "in rows 0, 1, 2, 3, 4, 5, 6, 7 and 12 more of" in text


def test_the_line_says_what_is_safe_and_what_to_do() -> None:
    assert "; the last good checkpoint is epoch 1 (step 4). Fix: lower training.lr_peak" in fault_line("x", "epoch 1 (step 4)")
    assert "; no checkpoint was stored before it. Fix: " in fault_line("x", None)
