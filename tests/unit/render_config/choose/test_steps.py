from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, SequentialSampler

from components.render_config.choose.steps import Batching, epoch_of, grad_accum_steps, plan_steps
from components.shared.documents.plan import StepPlan
from components.shared.errors import SpecError


def steps_of(num_rows: int, *, tokens_per_row: int = 10, warmup_share: float = 0.05, **batching: Any) -> StepPlan:
    fields: dict[str, Any] = {"num_processes": 1, "micro_batch": 1, "grad_accum": 1, "epochs": 1} | batching
    return plan_steps(num_rows, Batching(**fields), warmup_share=warmup_share, num_tokens=tokens_per_row * num_rows)


def test_198_rows_over_5_epochs_make_990_steps_saved_every_198() -> None:
    steps = steps_of(198, epochs=5)
    assert steps.total_steps == 990
    assert steps.save_steps == (198, 396, 594, 792, 990)


@given(st.integers(1, 300), st.integers(1, 8), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_steps_and_rows_are_those_of_accelerates_own_batches(
    num_rows: int, micro_batch: int, num_processes: int, grad_accum: int, drop_last: bool
) -> None:
    batching = Batching(num_processes, micro_batch, grad_accum, epochs=1, drop_last=drop_last)
    batches = BatchSampler(SequentialSampler(torch.arange(num_rows)), micro_batch, drop_last=drop_last)
    shards = [BatchSamplerShard(batches, num_processes, index) if num_processes > 1 else batches for index in range(num_processes)]
    dealt: list[list[Any]] = [list(shard) for shard in shards]
    if not dealt[0]:
        with pytest.raises(SpecError, match="nothing would be trained; set drop_last: false"):
            epoch_of(num_rows, batching)
        return
    assert {len(each) for each in dealt} == {len(dealt[0])}
    planned = epoch_of(num_rows, batching)
    assert planned.steps == -(-len(dealt[0]) // grad_accum)
    assert planned.rows == sum(len(batch) for each in dealt for batch in each)


def test_max_steps_ends_training_in_the_middle_of_an_epoch_and_saves_there() -> None:
    steps = steps_of(20, epochs=3, micro_batch=2, grad_accum=2, max_steps=7)
    assert (steps.steps_per_epoch, steps.total_steps, steps.save_steps) == (5, 7, (5, 7))
    assert steps.tokens_total == 10 * (20 + 2 * 4)


def test_what_is_missing_to_the_global_batch_is_accumulated() -> None:
    assert grad_accum_steps(global_batch=32, micro_batch=2, num_processes=4) == 4


@pytest.mark.parametrize(("global_batch", "nearest"), [(10, "8 or 16"), (3, "8")])
def test_a_global_batch_that_cannot_be_shared_out_is_told_with_the_nearest(global_batch: int, nearest: str) -> None:
    with pytest.raises(SpecError) as caught:
        grad_accum_steps(global_batch=global_batch, micro_batch=2, num_processes=4)
    assert caught.value.problems == (
        f"training.global_batch: got {global_batch}, must be a multiple of micro_batch 2 x 4 processes = 8; the nearest: {nearest}",
    )
