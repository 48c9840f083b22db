"""Which committed checkpoint is exported, and which value of the setting a spec may not have."""

from pathlib import Path
from typing import Any

import pytest

from components.export_adapter.chosen import chosen_checkpoint
from components.shared.documents.results import EpochLosses, History
from components.shared.errors import SpecError, StoreError
from components.shared.spec.file import parse_spec, spec_from_parameter
from components.shared.store.manifest import Manifest, publish_folder
from components.shared.store.storage import LocalStore

SPEC: dict[str, Any] = {"name": "r", "store": "s", "model": {"source": "m"}, "data": {"train": "t"}}


def finished_training(
    folder: Path, losses: dict[int, float | None], kept: set[int]
) -> tuple[LocalStore, Manifest]:
    """`losses`: held-out loss at the end of each epoch."""
    store, local = LocalStore(folder / "run"), folder / "local"
    local.mkdir()
    for epoch in kept:
        facts = {
            "epoch": epoch,
            "step": epoch * 10,
            "num_processes": 1,
            "zero_stage": 0,
            "loss": 1.0,
            "held_out_loss": losses[epoch],
            "steps_per_epoch": 10,
            "micro_batch": 1,
        }
        publish_folder(
            store, f"checkpoints/epoch-{epoch:04d}", local, made_by="train", inputs={}, facts=facts
        )
    epochs = tuple(
        EpochLosses(epoch=epoch, step=epoch * 10, loss=1.0, held_out_loss=loss)
        for epoch, loss in losses.items()
    )
    history = History(seconds=1, tokens=1, epochs=epochs, steps=())
    (local / "history.json").write_text(history.model_dump_json())
    return store, publish_folder(
        store, "checkpoints", local, made_by="train", inputs={}, facts={"num_epochs": len(losses)}
    )


def test_the_best_is_that_of_the_whole_training(tmp_path: Path) -> None:
    store, training = finished_training(tmp_path, {1: 2.0, 2: 1.0, 3: 1.5}, kept={2, 3})
    assert chosen_checkpoint(store, training, "best").epoch == 2
    assert chosen_checkpoint(store, training, "last").epoch == 3


def test_another_is_not_exported_as_the_best_where_that_one_is_gone(tmp_path: Path) -> None:
    store, training = finished_training(tmp_path, {1: 1.0, 2: 1.7, 3: 1.5}, kept={2, 3})
    with pytest.raises(
        StoreError,
        match=r"the best is epoch 1, and its checkpoint is not there; epochs there: 2, 3",
    ):
        chosen_checkpoint(store, training, "best")


def test_none_is_the_best_without_held_out_losses(tmp_path: Path) -> None:
    store, training = finished_training(tmp_path, {1: None, 2: float("nan")}, kept={1, 2})
    with pytest.raises(StoreError, match=r"no epoch has a held-out loss"):
        chosen_checkpoint(store, training, "best")


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"checkpoints": {"keep": {"last": 2}}, "export": {"checkpoint": "best"}},
            r"set checkpoints\.keep\.best: 1",
        ),
        (
            {"data": {"train": "t", "held_out_share": 0}, "export": {"checkpoint": "best"}},
            r"data\.held_out_share is 0",
        ),
        (
            {"training": {"epochs": 3}, "export": {"checkpoint": 4}},
            r"got 4, must be last, best or an epoch up to training\.epochs, 3",
        ),
    ],
    ids=["best is not kept", "nothing is held out", "beyond the last epoch"],
)
def test_a_checkpoint_that_cannot_be_there_is_refused_in_the_spec(
    sections: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SpecError, match=problem):
        spec_from_parameter({**SPEC, **sections})


@pytest.mark.parametrize("keep", [{}, {"best": 1}, {"last": 1, "best": 2}, {"every": 1}])
def test_the_best_is_taken_where_it_is_kept(keep: dict[str, int]) -> None:
    assert (
        parse_spec(
            {**SPEC, "checkpoints": {"keep": keep}, "export": {"checkpoint": "best"}}
        ).export.checkpoint
        == "best"
    )
