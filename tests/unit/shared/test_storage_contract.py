"""What every store promises, asked of a local folder and of a real S3 server alike."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.shared.errors import ObjectExists, ObjectMissing, StoreError
from components.shared.store.s3_store import S3Store
from components.shared.store.storage import LocalStore, Store, StoredObject, open_store

ODD_KEYS = ("with space", "日本語/鋼.json", "100%+1=?&#.txt", "a" * 200, ".hidden", "quote'\"<>", "~tilde/-dash")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(request.getfixturevalue("s3_env").fresh_uri() if request.param == "s3" else str(tmp_path / "store"))


def test_uri_chooses_the_kind_of_store(store: Store, tmp_path: Path) -> None:
    assert isinstance(store, S3Store if store.uri.startswith("s3://") else LocalStore)
    assert open_store(store.uri).uri == store.uri


@pytest.mark.parametrize("content", [b"", b"x", b"\x00\xff" * 70_000])
def test_what_was_written_is_read_back(store: Store, content: bytes) -> None:
    store.write_bytes("a/b", content)
    assert store.read_bytes("a/b") == content


def test_writing_again_replaces_the_object(store: Store) -> None:
    store.write_bytes("a", b"old and longer")
    store.write_bytes("a", b"new")
    assert store.read_bytes("a") == b"new"


def test_missing_object_is_told_with_its_key(store: Store) -> None:
    store.write_bytes("a/b", b"x")
    for key in ("c", "a/c", "a/b/c", "a"):
        with pytest.raises(ObjectMissing, match=f"/{key}: no such object"):
            store.read_bytes(key)


def test_missing_object_is_not_downloaded(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="/a/b: no such object"):
        store.download("a/b", tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_if_absent_refuses_other_content_and_keeps_the_first(store: Store) -> None:
    store.write_bytes("a", b"first", if_absent=True)
    with pytest.raises(ObjectExists, match="/a: is there already"):
        store.write_bytes("a", b"second", if_absent=True)
    assert store.read_bytes("a") == b"first"


def test_if_absent_with_the_same_content_is_no_conflict(store: Store) -> None:
    store.write_bytes("a", b"same", if_absent=True)
    store.write_bytes("a", b"same", if_absent=True)
    assert store.read_bytes("a") == b"same"


def test_of_16_writers_at_once_with_if_absent_exactly_one_wins(store: Store) -> None:
    def won(number: int) -> bool:
        try:
            store.write_bytes("claim/who", b"%d" % number, if_absent=True)
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number, result in enumerate(pool.map(won, range(16))) if result]
    assert [int(store.read_bytes("claim/who"))] == winners


def test_readers_see_one_of_the_contents_whole_while_writers_replace_it(store: Store) -> None:
    store.write_bytes("a", b"0" * 50_000)
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(store.write_bytes, "a", b"%d" % number * 50_000) for number in range(10)]
        reads = [pool.submit(store.read_bytes, "a") for _ in range(30)]
        assert all(len(set(read.result())) == 1 and len(read.result()) == 50_000 for read in reads)
    assert [write.result() for write in writes] == [None] * 10


def test_list_is_in_order_of_whole_keys(store: Store) -> None:
    keys = ["a-b", "a.b", "a/b", "a/b0", "a0", "b", "b2/c/d", "A", "é", "鋼"]
    for key in keys:
        store.write_bytes(key, b"x")
    assert [found.key for found in store.list()] == sorted(keys)


def test_list_takes_any_beginning_of_a_key(store: Store) -> None:
    for key in ("run/epoch-1/a", "run/epoch-1/b/c", "run/epoch-10/a", "running", "other"):
        store.write_bytes(key, b"four")
    assert list(store.list("run/epoch-1/")) == [StoredObject("run/epoch-1/a", 4), StoredObject("run/epoch-1/b/c", 4)]
    assert [found.key for found in store.list("run/epoch-1")] == ["run/epoch-1/a", "run/epoch-1/b/c", "run/epoch-10/a"]
    assert [found.key for found in store.list("run")][-1] == "running"
    assert list(store.list("run/epoch-2")) == []


def test_list_of_a_store_nobody_wrote_to_is_empty(store: Store) -> None:
    assert list(store.list()) == []
    assert list(store.list("a/b")) == []


def test_store_inside_sees_and_writes_the_same_objects(store: Store) -> None:
    store.at("run/x").write_bytes("a/b", b"x")
    assert store.read_bytes("run/x/a/b") == b"x"
    assert list(store.at("run").at("x").list()) == [StoredObject("a/b", 1)]
    assert store.at("run/x").uri == f"{store.uri}/run/x"


def test_deleted_object_is_gone_and_deleting_again_is_no_error(store: Store) -> None:
    store.write_bytes("a/b", b"x")
    for key in ("a/b", "a/b", "a", "a/b/c", "never"):
        store.delete(key)
    assert list(store.list()) == []


def test_only_an_object_that_is_there_with_this_content_is_touched(store: Store) -> None:
    store.write_bytes("a", b"own")
    (before,) = store.list("a")
    time.sleep(1.1)  # S3 gives whole seconds
    assert not store.touch("a", b"other")
    assert next(store.list("a")).written == before.written
    assert store.touch("a", b"own")
    assert next(store.list("a")).written > before.written
    store.delete("a")
    assert not store.touch("a", b"own")
    assert list(store.list("a")) == []


def test_only_an_object_with_this_content_is_deleted_as_ones_own(store: Store) -> None:
    store.write_bytes("a", b"other")
    store.delete_own("a", b"own")
    assert store.read_bytes("a") == b"other"
    store.delete_own("a", b"other")
    store.delete_own("a", b"other")
    assert list(store.list()) == []
    assert list(store.unfinished()) == []


def test_what_another_writes_in_the_same_moment_is_neither_replaced_nor_deleted(store: Store) -> None:
    for change in ("touch", "delete_own"):
        store.write_bytes("a", b"own")
        with ThreadPoolExecutor(2) as pool:
            changed = [pool.submit(getattr(store, change), "a", b"own") for _ in range(20)]
            written = pool.submit(store.write_bytes, "a", b"other")
        assert [each.exception() for each in (*changed, written)] == [None] * 21
        assert store.read_bytes("a") == b"other"


@pytest.mark.parametrize("num_bytes", [0, 1, 9 * 2**20])
def test_uploaded_file_is_downloaded_whole(store: Store, tmp_path: Path, num_bytes: int) -> None:
    source, target = tmp_path / "source", tmp_path / "new folder" / "target"
    source.write_bytes(bytes(range(251)) * (num_bytes // 251 + 1))
    with source.open("r+b") as stream:
        stream.truncate(num_bytes)
    store.upload(source, "run/file.bin")
    store.download("run/file.bin", target)
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_download_replaces_what_was_there(store: Store, tmp_path: Path) -> None:
    store.write_bytes("a", b"new")
    (tmp_path / "file").write_bytes(b"old and longer")
    store.download("a", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_odd_keys_are_kept_as_they_are(store: Store) -> None:
    for key in ODD_KEYS:
        store.write_bytes(key, key.encode())
    assert [found.key for found in store.list()] == sorted(ODD_KEYS)
    assert [store.read_bytes(key).decode() for key in ODD_KEYS] == list(ODD_KEYS)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../../b", "./a", "a\0b", "a\\b"])
def test_keys_that_lead_elsewhere_are_refused(store: Store, key: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for act in (
        lambda: store.read_bytes(key),
        lambda: store.write_bytes(key, b"x"),
        lambda: store.upload(tmp_path / "file", key),
        lambda: store.download(key, tmp_path / "got"),
        lambda: store.delete(key),
        lambda: store.at(key),
    ):
        with pytest.raises(StoreError, match="must be names"):
            act()


def test_check_leaves_nothing_behind(store: Store) -> None:
    store.check()
    assert list(store.list()) == []


def test_missing_source_is_not_blamed_on_the_store(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.upload(tmp_path / "nowhere", "a")
    assert list(store.list()) == []


def test_what_a_killed_writer_left_is_found_by_prefix_and_can_be_discarded(store: Store) -> None:
    for key in ("run/a/file", "other/file"):
        if isinstance(store, S3Store):
            store.client.create_multipart_upload(Bucket=store.bucket, Key=f"{store.prefix}/{key}")
        else:
            assert isinstance(store, LocalStore)
            (store.root / key).parent.mkdir(parents=True)
            (store.root / key).with_name(f".writing-{'0' * 32}").write_bytes(b"half")
    (left,) = store.unfinished("run/")
    assert left.key.startswith("run/a/")
    assert left.begun > datetime.now(UTC) - timedelta(minutes=1)
    assert list(store.list()) == []
    store.discard(left)
    store.discard(left)
    assert list(store.unfinished("run/")) == []
    assert len(list(store.unfinished())) == 1


def test_list_tells_when_an_object_was_written(store: Store) -> None:
    store.write_bytes("a", b"x")
    (found,) = store.list()
    assert abs(found.written - datetime.now(UTC)) < timedelta(minutes=1)
