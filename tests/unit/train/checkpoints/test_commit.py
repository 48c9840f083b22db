import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.shared.errors import ObjectDamaged
from components.shared.spec.results import KeepSpec
from components.shared.store.checkpoints import committed_checkpoints, fetch_checkpoint
from components.shared.store.manifest import read_manifest
from components.shared.store.storage import LocalStore
from components.train.checkpoints.commit import Part, owner, prune, store_part
from tests.support.example_part import example_part


def part(
    root: Path, process_rank: int, *, attempt: str = "a1", epoch: int = 1, num_processes: int = 2
) -> Part:
    name = f"rng_state_{process_rank}.pth"
    root.mkdir(exist_ok=True)
    (root / name).write_text(f"state of {process_rank} in {attempt}")
    return example_part(
        root,
        (name,),
        epoch=epoch,
        step=10 * epoch,
        attempt=attempt,
        process_rank=process_rank,
        num_processes=num_processes,
        steps_per_epoch=10,
    )


def test_a_checkpoint_exists_only_when_every_process_has_stored_its_part(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert not store_part(store, part(tmp_path / "w", 0)).committed
    assert committed_checkpoints(store) == []
    assert store_part(store, part(tmp_path / "w", 1)).committed
    (checkpoint,) = committed_checkpoints(store)
    assert (checkpoint.epoch, checkpoint.step, len(checkpoint.manifest.files)) == (1, 10, 2)


def test_parts_of_different_attempts_never_make_one_checkpoint(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store_part(store, part(tmp_path / "w", 0, attempt="a1"))
    store_part(store, part(tmp_path / "w", 1, attempt="a2"))
    assert committed_checkpoints(store) == []


def test_a_second_attempt_leaves_a_committed_checkpoint_as_it_is(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for rank in (0, 1):
        store_part(store, part(tmp_path / "w", rank, attempt="a1"))
    before = read_manifest(store, "checkpoints/epoch-0001")
    assert not any(
        store_part(store, part(tmp_path / "w", rank, attempt="a2")).committed for rank in (0, 1)
    )
    assert read_manifest(store, "checkpoints/epoch-0001") == before


def test_eight_processes_that_finish_at_once_commit_one_whole_checkpoint(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    parts = [part(tmp_path / "w", rank, num_processes=8) for rank in range(8)]
    with ThreadPoolExecutor(8) as threads:
        stored = list(threads.map(lambda each: store_part(store, each), parts))
    assert any(each.committed for each in stored)
    (checkpoint,) = committed_checkpoints(store)
    assert len(checkpoint.manifest.files) == 8


def test_checkpoints_are_listed_oldest_first_beyond_nine(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for epoch in (10, 2, 1):
        store_part(store, part(tmp_path / "w", 0, epoch=epoch, num_processes=1))
    assert [checkpoint.epoch for checkpoint in committed_checkpoints(store)] == [1, 2, 10]


def test_what_another_start_of_the_job_writes_beside_a_needless_checkpoint_is_left_to_it(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path / "store")
    for epoch in (1, 2):
        for rank in (0, 1):
            store_part(store, part(tmp_path / "w", rank, epoch=epoch))
    store_part(store, part(tmp_path / "w", 0, attempt="a2"))
    assert prune(store, KeepSpec(last=1)) == ["checkpoints/epoch-0001"]
    assert [found.key for found in store.list("checkpoints/epoch-0001/")] == [
        "checkpoints/epoch-0001/a2/part-00000.json",
        "checkpoints/epoch-0001/a2/rng_state_0.pth",
    ]
    assert store_part(store, part(tmp_path / "w", 1, attempt="a2")).committed
    for checkpoint in committed_checkpoints(store):
        fetch_checkpoint(store, checkpoint, tmp_path / "local")


def test_a_process_fetches_only_the_files_it_asks_for(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for rank in (0, 1):
        store_part(store, part(tmp_path / "w", rank))
    (checkpoint,) = committed_checkpoints(store)
    fetch_checkpoint(store, checkpoint, tmp_path / "local", wanted=lambda name: owner(name) == 1)
    assert [path.name for path in (tmp_path / "local").iterdir()] == ["rng_state_1.pth"]


def test_a_damaged_file_is_named_and_not_left_behind(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store_part(store, part(tmp_path / "w", 0, num_processes=1))
    (tmp_path / "store/checkpoints/epoch-0001/a1/rng_state_0.pth").write_text("state of 0 in b1")
    (checkpoint,) = committed_checkpoints(store)
    with pytest.raises(ObjectDamaged, match=r"epoch-0001/a1/rng_state_0.pth: damaged"):
        fetch_checkpoint(store, checkpoint, tmp_path / "local")
    assert list((tmp_path / "local").iterdir()) == []


def test_a_part_of_a_training_whose_loss_is_no_number_is_stored(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    whole = part(tmp_path / "w", 0, num_processes=1)
    no_numbers = {"loss": math.nan, "held_out_loss": math.inf}
    reported = whole.model_copy(update={"facts": whole.facts.model_copy(update=no_numbers)})
    assert store_part(store, Part.model_validate_json(reported.model_dump_json())).committed
    (checkpoint,) = committed_checkpoints(store)
    assert checkpoint.held_out_loss is None


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("global_step12/bf16_zero_pp_rank_11_mp_rank_00_optim_states.pt", 11),
        ("global_step12/zero_pp_rank_1_mp_rank_00_model_states.pt", 1),
        ("rng_state_3.pth", 3),
        ("rng_state.pth", None),
        ("adapter_model.safetensors", None),
        ("latest", None),
    ],
)
def test_a_file_belongs_to_the_process_it_is_named_after(name: str, rank: int | None) -> None:
    assert owner(name) == rank
