import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, SequentialSampler

from components.render_config.steps import grad_accum_steps, plan_steps
from components.shared.errors import SpecError
from components.shared.plan import StepPlan


def steps_of(num_rows: int, *, epochs: int = 1, micro_batch: int = 1, grad_accum: int = 1, num_processes: int = 1) -> StepPlan:
    return plan_steps(
        num_rows=num_rows,
        epochs=epochs,
        micro_batch=micro_batch,
        grad_accum=grad_accum,
        num_processes=num_processes,
        warmup_share=0.05,
        num_tokens=1000,
    )


def test_198_rows_over_5_epochs_make_990_steps_saved_every_198() -> None:
    steps = steps_of(198, epochs=5)
    assert steps.total_steps == 990
    assert steps.save_steps == (198, 396, 594, 792, 990)


@given(st.integers(1, 300), st.integers(1, 8), st.integers(1, 5), st.integers(1, 4))
def test_steps_are_those_of_accelerates_own_batches(num_rows: int, micro_batch: int, num_processes: int, grad_accum: int) -> None:
    batches = BatchSampler(SequentialSampler(torch.arange(num_rows)), micro_batch, drop_last=False)
    dealt = [len(list(BatchSamplerShard(batches, num_processes, index))) for index in range(num_processes)]
    planned = steps_of(num_rows, micro_batch=micro_batch, num_processes=num_processes, grad_accum=grad_accum).steps_per_epoch
    assert set(dealt) == {dealt[0]}
    assert planned == -(-dealt[0] // grad_accum)


def test_what_is_missing_to_the_global_batch_is_accumulated() -> None:
    assert grad_accum_steps(global_batch=32, micro_batch=2, num_processes=4) == 4


@pytest.mark.parametrize(("global_batch", "nearest"), [(10, "8 or 16"), (3, "8")])
def test_a_global_batch_that_cannot_be_shared_out_is_told_with_the_nearest(global_batch: int, nearest: str) -> None:
    with pytest.raises(SpecError) as caught:
        grad_accum_steps(global_batch=global_batch, micro_batch=2, num_processes=4)
    assert caught.value.problems == (
        f"training.global_batch: got {global_batch}, must be a multiple of micro_batch 2 x 4 processes = 8; the nearest: {nearest}",
    )
