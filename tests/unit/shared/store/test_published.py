"""What a place for published models promises, in a folder and on a real S3 server alike."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.shared.errors import RunFailed, SpecError, StoreError
from components.shared.store.layout import version_folder
from components.shared.store.manifest import publish_folder
from components.shared.store.published import (
    Claim,
    Move,
    claim_version,
    latest,
    latest_beside,
    make_latest,
    roll_back,
    versions,
    write_latest,
)
from components.shared.store.storage import LocalStore, Store, open_store

NAME = "support"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(
        request.getfixturevalue("s3_env").fresh_uri()
        if request.param == "s3"
        else str(tmp_path / "store")
    )


def finish_version(store: Store, folder: Path, run: str) -> int:
    """A version's number is claimed, and its files and manifest are there."""
    number = claim_version(store, NAME, Claim(run=run, export=f"digest of {run}"))
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(run.encode())
    inputs, facts = {"export": f"digest of {run}"}, {"run": run, "export": "adapter"}
    publish_folder(
        store, version_folder(NAME, number), folder, made_by="publish", inputs=inputs, facts=facts
    )
    return number


def publish(store: Store, folder: Path, run: str, *, instead_of: int | None = None) -> Move:
    return make_latest(
        store, NAME, finish_version(store, folder, run), why="published", instead_of=instead_of
    )


def latest_file(store: Store) -> dict[str, Any]:
    return json.loads(store.read_bytes(f"published/{NAME}/latest.json"))


def test_each_version_becomes_the_latest_and_all_stay(store: Store, tmp_path: Path) -> None:
    for run in ("a", "b", "c"):
        publish(store, tmp_path / run, run)
    assert [
        (each.label, each.manifest.facts["run"], each.is_latest) for each in versions(store)
    ] == [
        ("v1", "a", False),
        ("v2", "b", False),
        ("v3", "c", True),
    ]
    assert (latest_file(store)["version"], latest_file(store)["uri"]) == (
        3,
        f"{store.uri}/published/support/v0003",
    )
    assert store.read_bytes("published/support/v0001/adapter_model.safetensors") == b"a"


def test_rolling_back_goes_to_the_version_before_or_to_any_and_forward_again(
    store: Store, tmp_path: Path
) -> None:
    for run in ("a", "b", "c"):
        publish(store, tmp_path / run, run)
    assert roll_back(store, NAME, None).version == 2
    assert roll_back(store, NAME, None).version == 1
    assert latest_file(store)["version"] == 1
    with pytest.raises(
        SpecError, match=r"support: there is no version before v1; versions: v1, v2, v3"
    ):
        roll_back(store, NAME, None)
    assert roll_back(store, NAME, 3).version == 3
    assert [each.label for each in versions(store) if each.is_latest] == ["v3"]


def test_of_eight_publishers_at_once_each_has_a_version_and_the_newest_move_counts(
    store: Store, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(8) as pool:
        moves = list(pool.map(lambda run: publish(store, tmp_path / run, run), "abcdefgh"))
    assert sorted(move.version for move in moves) == list(range(1, 9))
    assert sorted(move.number for move in moves) == list(range(1, 9))
    newest = max(moves, key=lambda move: move.number)
    assert latest(store, NAME) == newest
    assert latest_file(store)["version"] == newest.version


def test_an_export_is_compared_with_the_version_before_its_own_never_with_itself(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path / "store")

    def beside(run: str) -> int | None:
        move = latest_beside(store, NAME, f"digest of {run}")
        return None if move is None else move.version

    assert beside("a") is None
    publish(store, tmp_path / "a", "a")
    assert (beside("a"), beside("b")) == (None, 1)
    publish(store, tmp_path / "b", "b")
    assert (beside("a"), beside("b")) == (2, 1)
    roll_back(store, NAME, 1)
    assert (beside("a"), beside("b")) == (None, 1)


def test_a_version_that_never_was_the_latest_is_not_gone_back_to_and_is_marked(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path / "store")
    publish(store, tmp_path / "a", "a")
    finish_version(store, tmp_path / "late", "late")
    publish(store, tmp_path / "c", "c")
    assert [(each.label, each.was_latest) for each in versions(store)] == [
        ("v1", True),
        ("v2", False),
        ("v3", True),
    ]
    with pytest.raises(
        SpecError,
        match=r"support: v2 never was the latest; versions: v1, v2 \(never the latest\), v3",
    ):
        roll_back(store, NAME, 2)
    assert roll_back(store, NAME, None).version == 1


def test_of_two_publishers_compared_with_the_same_version_one_is_refused(
    store: Store, tmp_path: Path
) -> None:
    seen = publish(store, tmp_path / "a", "a").number
    publish(store, tmp_path / "b", "b", instead_of=seen)
    with pytest.raises(
        RunFailed,
        match=(
            r"another version became the latest while this one was compared.*run the same command "
            r"again"
        ),
    ):
        publish(store, tmp_path / "c", "c", instead_of=seen)
    assert latest_file(store)["version"] == 2


def test_a_claim_is_the_same_number_again_and_nobody_elses(store: Store) -> None:
    mine, other = Claim(run="a", export="x"), Claim(run="b", export="y")
    assert [claim_version(store, NAME, each) for each in (mine, other, mine, other)] == [1, 2, 1, 2]


def test_a_version_without_a_manifest_is_not_there_and_cannot_be_the_latest(
    store: Store, tmp_path: Path
) -> None:
    publish(store, tmp_path / "a", "a")
    number = claim_version(store, NAME, Claim(run="b", export="killed while it wrote"))
    store.write_bytes(f"{version_folder(NAME, number)}/adapter_model.safetensors", b"half")
    assert [each.label for each in versions(store)] == ["v1"]
    with pytest.raises(StoreError, match=r"v0002: not finished"):
        make_latest(store, NAME, number, why="published", instead_of=None)
    with pytest.raises(SpecError, match=r"there is no v2; versions: v1"):
        roll_back(store, NAME, 2)
    assert latest_file(store)["version"] == 1


def test_a_publisher_killed_between_move_and_latest_file_is_made_good(
    store: Store, tmp_path: Path
) -> None:
    publish(store, tmp_path / "a", "a")
    before = store.read_bytes(f"published/{NAME}/latest.json")
    publish(store, tmp_path / "b", "b")
    store.write_bytes(f"published/{NAME}/latest.json", before)
    newest = latest(store, NAME)
    assert newest is not None
    assert newest.version == 2
    write_latest(store, NAME)
    assert latest_file(store)["version"] == 2


def test_a_version_whose_file_is_gone_is_not_gone_back_to(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for run in ("a", "b"):
        publish(store, tmp_path / run, run)
    store.delete("published/support/v0001/adapter_model.safetensors")
    with pytest.raises(
        StoreError, match=r"v0001/adapter_model.safetensors: is not there as its manifest says"
    ):
        roll_back(store, NAME, None)
    assert latest_file(store)["version"] == 2


def test_unknown_name_is_reported_with_those_that_are_there(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    publish(store, tmp_path / "a", "a")
    with pytest.raises(
        SpecError,
        match=r"'suport': nothing is published under this name in .*; published there: support",
    ):
        roll_back(store, "suport", None)
    assert latest(store, "suport") is None
    assert versions(store, "suport") == []


def test_damaged_move_is_reported_and_not_passed_over(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    publish(store, tmp_path / "a", "a")
    store.write_bytes("published/support/moves/000001.json", b"{")
    with pytest.raises(StoreError, match=r"moves/000001.json: is damaged"):
        latest(store, NAME)


def test_a_store_that_fails_after_the_move_is_no_bad_input(tmp_path: Path) -> None:
    """The version is the latest, only latest.json is not written: exit code 1, and the same again
    writes it."""
    store = LocalStore(tmp_path / "store")
    publish(store, tmp_path / "files", "run-1")
    publish(store, tmp_path / "files", "run-2")
    file = tmp_path / f"store/published/{NAME}/latest.json"
    file.unlink()
    (file / "in-the-way").mkdir(parents=True)
    with pytest.raises(StoreError) as error:
        roll_back(store, NAME, None)
    assert error.value.exit_code == 1
    move = latest(store, NAME)
    assert move is not None
    assert move.version == 1
    with pytest.raises(SpecError) as refused:
        roll_back(store, NAME, 7)
    assert refused.value.exit_code == 2
