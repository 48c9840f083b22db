from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.shared.errors import StoreUnreachable
from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.storage import LocalStore
from components.train.checkpoints.commit import store_part
from pipelines.checkpoints.listing import damages, not_committed
from pipelines.checkpoints.orphans import find_orphans, remove_orphans
from tests.unit.train.checkpoints.test_commit import part


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def store_with_leftovers(folder: Path) -> LocalStore:
    """Epoch 1 committed by attempt a1 and begun again by a2; epoch 2 never finished; a file half
    written."""
    store = LocalStore(folder / "store")
    for rank in (0, 1):
        store_part(store, part(folder / "w", rank, attempt="a1"))
    store_part(store, part(folder / "w", 0, attempt="a2"))
    store_part(store, part(folder / "w", 1, attempt="a1", epoch=2))
    (folder / "store/checkpoints/epoch-0002/a1" / f".writing-{'0' * 32}").write_bytes(b"half")
    (folder / "store/model").mkdir()
    (folder / "store/model" / f".writing-{'1' * 32}").write_bytes(b"half of an export")
    return store


def test_only_what_no_manifest_stands_for_is_found(tmp_path: Path) -> None:
    orphans = find_orphans(
        store_with_leftovers(tmp_path), older_than=timedelta(minutes=30), now=in_an_hour()
    )
    assert sorted(found.key for found in orphans.objects) == [
        "checkpoints/epoch-0001/a2/part-00000.json",
        "checkpoints/epoch-0001/a2/rng_state_0.pth",
        "checkpoints/epoch-0002/a1/part-00001.json",
        "checkpoints/epoch-0002/a1/rng_state_1.pth",
    ]
    assert sorted(left.key for left in orphans.unfinished) == [
        f"checkpoints/epoch-0002/a1/.writing-{'0' * 32}",
        f"model/.writing-{'1' * 32}",
    ]


def test_what_a_training_wrote_lately_is_left_alone(tmp_path: Path) -> None:
    orphans = find_orphans(
        store_with_leftovers(tmp_path), older_than=timedelta(hours=2), now=in_an_hour()
    )
    assert (orphans.objects, orphans.unfinished) == ((), ())


def test_removing_leaves_the_committed_checkpoint_whole(tmp_path: Path) -> None:
    store = store_with_leftovers(tmp_path)
    removed = list(
        remove_orphans(store, find_orphans(store, older_than=timedelta(0), now=in_an_hour()))
    )
    assert len(removed) == 6
    assert [found.key for found in store.list()] == [
        "checkpoints/epoch-0001/a1/part-00000.json",
        "checkpoints/epoch-0001/a1/part-00001.json",
        "checkpoints/epoch-0001/a1/rng_state_0.pth",
        "checkpoints/epoch-0001/a1/rng_state_1.pth",
        "checkpoints/epoch-0001/manifest.json",
    ]


def test_a_checkpoint_committed_since_it_was_found_stays(tmp_path: Path) -> None:
    store = store_with_leftovers(tmp_path)
    orphans = find_orphans(store, older_than=timedelta(0), now=in_an_hour())
    store_part(store, part(tmp_path / "w", 0, attempt="a1", epoch=2))
    removed = list(remove_orphans(store, orphans))
    assert not any("epoch-0002/a1/rng" in key or "epoch-0002/a1/part" in key for key in removed)


def test_folders_without_a_manifest_are_listed_with_what_they_hold(tmp_path: Path) -> None:
    store = store_with_leftovers(tmp_path)
    (left,) = not_committed(store, committed_checkpoints(store))
    assert (left.folder, left.num_files, left.found) == (
        "checkpoints/epoch-0002",
        2,
        "2 files so far",
    )


def test_a_checkpoint_whose_manifest_cannot_be_read_is_listed_and_nothing_of_it_is_removed(
    tmp_path: Path,
) -> None:
    store = store_with_leftovers(tmp_path)
    store.write_bytes("checkpoints/epoch-0001/manifest.json", b"{")
    assert [left.found for left in not_committed(store, committed_checkpoints(store))] == [
        "its manifest cannot be read",
        "2 files so far",
    ]
    orphans = find_orphans(store, older_than=timedelta(0), now=in_an_hour())
    assert not any("epoch-0001" in found.key for found in orphans.objects)


def test_verifying_names_each_file_that_is_not_what_it_was(tmp_path: Path) -> None:
    store = store_with_leftovers(tmp_path)
    (tmp_path / "store/checkpoints/epoch-0001/a1/rng_state_1.pth").write_bytes(b"other")
    found = dict(damages(store, committed_checkpoints(store)))
    assert found["checkpoints/epoch-0001/a1/rng_state_0.pth"] is None
    assert "damaged: found 5 bytes" in (found["checkpoints/epoch-0001/a1/rng_state_1.pth"] or "")


class FailingStore(LocalStore):
    """Refuses to delete, after the first few objects."""

    def __init__(self, root: Path, *, num_deleted: int) -> None:
        super().__init__(root)
        self.left = num_deleted

    def delete(self, key: str) -> None:
        if self.left == 0:
            raise StoreUnreachable(f"{self.uri}/{key}: no answer")
        self.left -= 1
        super().delete(key)


@pytest.mark.parametrize(("num_deleted", "exit_code"), [(0, 2), (1, 1), (2, 1)])
def test_a_store_that_goes_away_while_files_are_removed_is_no_bad_input(
    num_deleted: int, exit_code: int, tmp_path: Path
) -> None:
    whole = store_with_leftovers(tmp_path)
    store = FailingStore(whole.root, num_deleted=num_deleted)
    orphans = find_orphans(store, older_than=timedelta(0), now=in_an_hour())
    removed: list[str] = []
    with pytest.raises(StoreUnreachable) as error:
        removed.extend(remove_orphans(store, orphans))
    assert error.value.exit_code == exit_code
