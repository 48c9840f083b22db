import math

import pytest

from components.shared.documents.plan import Plan
from components.shared.documents.results import History
from components.shared.spec.file import spec_from_parameter
from components.train.loop.results import PeakMemory, history_of
from components.train.loop.trainer import LogHistory, epoch_loss
from tests.support.made_plan import make_plan


def step(number: int, loss: float, **fields: float) -> dict[str, float]:
    return {"step": number, "loss": loss, "learning_rate": 0.1, **fields}


HISTORY: LogHistory = [
    {"held_out_loss": 9.0, "held_out_epoch": 0, "step": 0},
    step(1, 6.0, trained_tokens=300, grad_norm=2.0),
    step(2, 4.0, trained_tokens=100, grad_norm=math.inf),
    {"held_out_loss": 4.0, "held_out_epoch": 1, "step": 2},
    step(3, 3.0, trained_tokens=300, grad_norm=1.0),
]


def test_the_loss_of_an_epoch_is_a_mean_over_tokens() -> None:
    assert epoch_loss(HISTORY, steps_per_epoch=2, epoch=1) == pytest.approx(
        (300 * 6 + 100 * 4) / 400
    )
    assert epoch_loss(HISTORY, steps_per_epoch=2, epoch=2) == 3.0


def test_steps_of_which_the_tokens_are_not_known_count_alike() -> None:
    assert (
        epoch_loss([step(1, 6.0), step(2, 4.0, trained_tokens=100)], steps_per_epoch=2, epoch=1)
        == 5.0
    )


def plan_of_one_epoch() -> Plan:
    tree = {
        "name": "t",
        "store": "s",
        "model": {"source": "m"},
        "data": {"train": "d"},
        "training": {"epochs": 1, "global_batch": 4},
    }
    return make_plan(spec_from_parameter(tree), num_rows=8)


def test_a_step_that_fp16_skipped_has_no_norm_and_is_counted() -> None:
    made = history_of(HISTORY[:4], plan_of_one_epoch(), PeakMemory(None, None), num_skipped=1)
    assert [each.grad_norm for each in made.steps] == [2.0, None]
    assert [each.trained_tokens for each in made.steps] == [300, 100]
    assert made.skipped_steps == 1


def test_a_training_that_diverged_is_written_and_read_with_its_losses() -> None:
    log = [HISTORY[0], {**HISTORY[1], "loss": math.nan}, *HISTORY[2:4]]
    made = history_of(log, plan_of_one_epoch(), PeakMemory(None, None), num_skipped=0)
    read = History.model_validate_json(made.model_dump_json(indent=1))
    assert [math.isnan(each.loss) for each in read.steps].count(True) == 1
    assert math.isnan(read.epochs[0].loss)
