import math
from pathlib import Path
from typing import Any

import pytest

from components.shared.documents.plan import Plan, ZeroPlan
from components.shared.spec.file import spec_from_parameter
from components.shared.spec.results import KeepSpec
from components.shared.store.checkpoints import (
    Checkpoint,
    committed_checkpoints,
    reasons_to_keep,
    resume_problem,
    unreadable_checkpoints,
)
from components.shared.store.manifest import Manifest, publish_folder
from components.shared.store.storage import LocalStore
from components.train.checkpoints.resume import set_aside
from tests.support.made_plan import make_plan


def checkpoint(
    epoch: int | None, step: int, held_out_loss: float | None = None, **inputs: Any
) -> Checkpoint:
    folder = f"checkpoints/step-{step:06d}" if epoch is None else f"checkpoints/epoch-{epoch:04d}"
    facts = {
        "epoch": epoch,
        "step": step,
        "num_processes": 1,
        "zero_stage": 3,
        "loss": 1.0,
        "held_out_loss": held_out_loss,
    }
    facts |= {"steps_per_epoch": 10, "micro_batch": 1}
    return Checkpoint(
        folder,
        Manifest(
            folder=folder, made_by="train", inputs={"training": "7" * 64, **inputs}, facts=facts
        ),
    )


LOSSES = (3.0, 1.0, 2.0, 1.5, 2.5)
EPOCHS = [checkpoint(epoch, 10 * epoch, loss) for epoch, loss in enumerate(LOSSES, start=1)]


@pytest.mark.parametrize(
    ("keep", "epochs"),
    [
        (KeepSpec(), [1, 2, 3, 4, 5]),
        (KeepSpec(last=1), [5]),
        (KeepSpec(last=2), [4, 5]),
        (KeepSpec(last=9), [1, 2, 3, 4, 5]),
        (KeepSpec(best=2), [2, 4, 5]),
        (KeepSpec(every=2), [2, 4, 5]),
        (KeepSpec(last=1, best=1, every=3), [2, 3, 5]),
    ],
)
def test_what_any_setting_names_stays_and_the_newest_always(
    keep: KeepSpec, epochs: list[int]
) -> None:
    assert sorted(reasons_to_keep(EPOCHS, keep)) == [
        f"checkpoints/epoch-{epoch:04d}" for epoch in epochs
    ]


def test_each_that_stays_says_why() -> None:
    why = reasons_to_keep(EPOCHS, KeepSpec(last=1, best=2, every=2))
    assert why["checkpoints/epoch-0002"] == "best 2, every 2"
    assert why["checkpoints/epoch-0005"] == "last 1, newest"


def test_a_held_out_loss_that_is_no_number_is_never_the_best() -> None:
    losses = (2.0, math.nan, 1.0, 3.0)
    epochs = [checkpoint(epoch, 10 * epoch, loss) for epoch, loss in enumerate(losses, start=1)]
    assert sorted(reasons_to_keep(epochs, KeepSpec(best=1))) == [
        "checkpoints/epoch-0003",
        "checkpoints/epoch-0004",
    ]
    assert sorted(reasons_to_keep(epochs, KeepSpec(best=3))) == [
        f"checkpoints/epoch-{epoch:04d}" for epoch in (1, 3, 4)
    ]


def test_a_checkpoint_between_epochs_stays_only_while_it_is_the_newest() -> None:
    between = checkpoint(None, 15)
    assert between.folder in reasons_to_keep([EPOCHS[0], between], KeepSpec())
    assert between.folder not in reasons_to_keep([EPOCHS[0], between, EPOCHS[1]], KeepSpec())


def test_epochs_and_steps_are_listed_in_the_order_of_training(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    (tmp_path / "empty").mkdir()
    for each in (checkpoint(2, 20), checkpoint(None, 15), checkpoint(1, 10), checkpoint(None, 20)):
        facts = each.manifest.facts
        publish_folder(
            store, each.folder, tmp_path / "empty", made_by="train", inputs={}, facts=facts
        )
    assert [found.title for found in committed_checkpoints(store)] == [
        "epoch 1 (step 10)",
        "step 15",
        "step 20",
        "epoch 2 (step 20)",
    ]


def test_a_manifest_that_cannot_be_read_is_no_checkpoint_and_is_reported(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    (tmp_path / "empty").mkdir()
    publish_folder(
        store,
        "checkpoints/epoch-0001",
        tmp_path / "empty",
        made_by="train",
        inputs={},
        facts=EPOCHS[0].manifest.facts,
    )
    store.write_bytes("checkpoints/epoch-0002/manifest.json", b'{"folder": "checkpoints/epo')
    assert [found.title for found in committed_checkpoints(store)] == ["epoch 1 (step 10)"]
    assert unreadable_checkpoints(store) == {
        "checkpoints/epoch-0002": (
            f"{store.uri}/checkpoints/epoch-0002/manifest.json: is no manifest of schema version 1"
        )
    }


@pytest.mark.parametrize(
    ("before", "after", "reported"),
    [
        (b'"schema_version": 1', b'"schema_version": 2', "is no manifest of schema version 1"),
        (b'"step": 20', b'"stop": 20', "is no checkpoint's manifest: it does not tell step"),
        (b'"step": 20', b'"step": "20"', "is no checkpoint's manifest: step: found '20'"),
        (
            b'"epoch": 2',
            b'"epoch": 3',
            "is not this folder's: it tells of checkpoints/epoch-0002, epoch 3, step 20",
        ),
        (
            b'"num_processes": 1',
            b'"num_processes": null',
            "is no checkpoint's manifest: num_processes: found None",
        ),
    ],
)
def test_a_manifest_in_which_a_byte_changed_is_no_checkpoint_and_is_reported(
    before: bytes, after: bytes, reported: str, tmp_path: Path
) -> None:
    store, second = LocalStore(tmp_path / "store"), EPOCHS[1]
    content = second.manifest.to_bytes()
    assert before in content
    store.write_bytes(f"{second.folder}/manifest.json", content.replace(before, after))
    assert committed_checkpoints(store) == []
    assert reported in unreadable_checkpoints(store)[second.folder]
    set_aside(store, second.folder, None)
    assert [found.key for found in store.list()] == [f"{second.folder}/damaged.json"]


def test_what_another_start_committed_meanwhile_is_not_set_aside(tmp_path: Path) -> None:
    store, second = LocalStore(tmp_path / "store"), EPOCHS[1]
    store.write_bytes(f"{second.folder}/manifest.json", second.manifest.to_bytes())
    set_aside(store, second.folder, None)
    assert committed_checkpoints(store) == [second]


def plan_of_ten_steps_an_epoch() -> Plan:
    spec = spec_from_parameter(
        {"name": "t", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}
    )
    return make_plan(spec, num_rows=10 * spec.training.global_batch)


def test_other_steps_an_epoch_are_another_place_in_the_data() -> None:
    plan = plan_of_ten_steps_an_epoch()
    changed = plan.model_copy(
        update={
            "steps": plan.steps.model_copy(
                update={"steps_per_epoch": 9, "micro_batch": 4, "num_processes": 2}
            )
        }
    )
    assert resume_problem(EPOCHS[0], changed) == (
        "training.drop_last: an epoch is 9 steps with micro_batch 4 on 2 processes, but "
        "checkpoints/epoch-0001 is of a training with 10 steps an epoch, with micro_batch 1 on 1: "
        "other rows are left out; set those again, or another name"
    )


def test_only_the_same_training_at_the_same_stage_can_be_gone_on_with() -> None:
    plan = plan_of_ten_steps_an_epoch()
    assert resume_problem(EPOCHS[0], plan) is None
    assert "another training" in (resume_problem(checkpoint(1, 10, training="8" * 64), plan) or "")
    assert resume_problem(EPOCHS[0], plan.model_copy(update={"zero": ZeroPlan(stage=2)})) == (
        "zero.stage: got 2, but checkpoints/epoch-0001 is of stage 3; set zero.stage: 3, or "
        "another name"
    )
