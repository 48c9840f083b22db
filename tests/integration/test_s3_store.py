"""What a user of an S3 store reads when it is set up wrongly, and what a bad network does to the
store's promises."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.shared.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreMissing,
    StoreUnreachable,
)
from components.shared.log import set_up_log
from components.shared.store import patience
from components.shared.store.patience import waits, waits_no_more
from components.shared.store.s3_store import S3Store
from components.shared.store.storage import open_store
from tests.support.faulty_proxy import FaultyProxy, faulty_proxy
from tests.support.s3_server import S3Server

ACTS: dict[str, Callable[[str, Path], object]] = {
    "check": lambda uri, _: open_store(uri).check(),
    "read": lambda uri, _: open_store(uri).read_bytes("a"),
    "write": lambda uri, _: open_store(uri).write_bytes("a", b"x"),
    "claim": lambda uri, _: open_store(uri).write_bytes("a", b"x", if_absent=True),
    "upload": lambda uri, path: open_store(uri).upload(path, "a"),
    "download": lambda uri, path: open_store(uri).download("a", path.with_name("got")),
    "list": lambda uri, _: list(open_store(uri).list()),
    "delete": lambda uri, _: open_store(uri).delete("a"),
}
WRONG = "wrong-0123456789"


@pytest.fixture(params=list(ACTS))
def act(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], object]:
    """One use of a store, given its URI."""
    (tmp_path / "file").write_bytes(b"x")
    return lambda uri: ACTS[request.param](uri, tmp_path / "file")


@pytest.fixture
def proxy(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3_env.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.endpoint)
        yield between


def only_line(error: pytest.ExceptionInfo[StoreError]) -> str:
    (line,) = error.value.problems
    assert "\n" not in line
    return line


def test_wrong_secret_is_reported_at_every_use(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch, act: Callable[[str], object]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG)
    with pytest.raises(
        StoreDenied, match=r"SignatureDoesNotMatch .* check AWS_SECRET_ACCESS_KEY"
    ) as error:
        act(s3_env.fresh_uri())
    assert WRONG not in only_line(error)
    assert s3_env.env["AWS_ACCESS_KEY_ID"] not in only_line(error)


def test_unknown_key_is_reported_at_every_use(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch, act: Callable[[str], object]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", WRONG)
    with pytest.raises(
        StoreDenied, match=r"InvalidAccessKeyId .* check AWS_ACCESS_KEY_ID"
    ) as error:
        act(s3_env.fresh_uri())
    assert WRONG not in only_line(error)


def test_missing_bucket_is_reported_at_every_use_and_not_made(
    s3_env: S3Server, act: Callable[[str], object]
) -> None:
    with pytest.raises(
        StoreMissing, match=r"no bucket 'nobody' at http://127.0.0.1.* create it"
    ) as error:
        act("s3://nobody/runs")
    assert only_line(error).startswith("s3://nobody/runs")


def test_missing_credentials_are_reported_at_every_use(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, act: Callable[[str], object]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)
    with pytest.raises(
        StoreDenied,
        match=r"no usable credentials .* set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ) as error:
        act(s3.fresh_uri())
    assert only_line(error)


def test_dead_endpoint_is_reported_by_check_in_seconds(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(
            StoreUnreachable, match=f"{endpoint}: no answer .*; check AWS_ENDPOINT_URL_S3"
        ) as error:
            open_store(s3_env.fresh_uri()).check()
    assert only_line(error)


@pytest.mark.parametrize(
    "endpoint", ["nowhere", "http://[", "http://127.0.0.1:99999", "ftp://u:hidden@host"]
)
def test_endpoint_that_is_no_address_is_reported(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL_S3") as error:
        open_store(s3_env.fresh_uri()).check()
    assert "hidden" not in only_line(error)


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///runs", "s3://bucket/a//b", "s3://bucket/../b", "gs://bucket"]
)
def test_uri_that_names_no_store_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match="must be"):
        open_store(uri)


def test_store_on_this_machine_is_reached_past_a_proxy(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    store = open_store(s3_env.fresh_uri())
    store.write_bytes("a", b"reached")
    assert store.read_bytes("a") == b"reached"


def test_file_of_several_parts_goes_up_and_comes_down_whole(
    s3_env: S3Server, tmp_path: Path
) -> None:
    store = S3Store.from_uri(s3_env.fresh_uri())
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * (66 * 4096 + 1))
    store.upload(source, "big")
    store.download("big", target)
    assert target.read_bytes() == source.read_bytes()
    head = store.client.head_object(
        Bucket=store.bucket, Key=f"{store.prefix}/big", ChecksumMode="ENABLED"
    )
    assert head.get("ChecksumType") == "FULL_OBJECT"
    assert head["ETag"].endswith('-3"')


def test_claim_whose_answer_was_lost_is_still_ours(s3: S3Server, proxy: FaultyProxy) -> None:
    store = open_store(s3.fresh_uri())
    proxy.faults["PUT"] = ["lose_answer"]
    store.write_bytes("claim", b"ours", if_absent=True)
    assert (store.read_bytes("claim"), proxy.faults["PUT"]) == (b"ours", [])


def test_claim_lost_to_another_while_the_answer_was_lost_is_not_ours(
    s3: S3Server, proxy: FaultyProxy
) -> None:
    store = open_store(s3.fresh_uri())
    store.write_bytes("claim", b"theirs")
    proxy.faults["PUT"] = ["lose_answer"]
    with pytest.raises(ObjectExists):
        store.write_bytes("claim", b"ours", if_absent=True)


@pytest.mark.parametrize("num_bytes", [100, 9 * 2**20])
def test_body_that_broke_off_is_asked_for_again(
    s3: S3Server, proxy: FaultyProxy, tmp_path: Path, num_bytes: int
) -> None:
    store = open_store(s3.fresh_uri())
    store.write_bytes("a", b"x" * num_bytes)
    proxy.faults["GET"] = ["cut_answer", "cut_answer"]
    assert store.read_bytes("a") == b"x" * num_bytes
    proxy.faults["GET"] = ["cut_answer", "cut_answer"]
    store.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x" * num_bytes


def test_body_that_always_breaks_off_leaves_no_file(
    s3: S3Server, proxy: FaultyProxy, tmp_path: Path
) -> None:
    store = open_store(s3.fresh_uri())
    store.write_bytes("a", b"x" * 100)
    proxy.faults["GET"] = ["cut_answer"] * 10
    with pytest.raises(StoreUnreachable, match="broke off"):
        store.download("a", tmp_path / "a")
    with pytest.raises(StoreUnreachable, match="no answer"):
        store.read_bytes("a")
    assert list(tmp_path.iterdir()) == []


def test_busy_store_is_waited_for(s3: S3Server, proxy: FaultyProxy, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    proxy.faults["PUT"] = ["busy"] * 3
    store = open_store(s3.fresh_uri())
    store.upload(tmp_path / "file", "a")
    assert store.read_bytes("a") == b"x" * 1000


def test_store_that_stays_busy_is_reported_by_check(s3: S3Server, proxy: FaultyProxy) -> None:
    proxy.faults["PUT"] = ["busy"] * 3
    with pytest.raises(StoreUnreachable, match="answered SlowDown to every try; wait"):
        open_store(s3.fresh_uri()).check()
    assert proxy.num_requests == 3


def test_upload_with_a_flipped_bit_is_refused_and_leaves_nothing(
    s3: S3Server, proxy: FaultyProxy, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    store = open_store(s3.fresh_uri())
    proxy.faults["PUT"] = ["flip_request_bit"]
    with pytest.raises(ObjectDamaged, match="not what was sent"):
        store.upload(tmp_path / "file", "a")
    with pytest.raises(ObjectMissing):
        store.read_bytes("a")


def test_a_store_opened_by_a_step_waits_and_one_that_was_not_does_not(
    s3: S3Server,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.1)
    with waits(set_up_log("evaluate")):
        store = open_store(s3.fresh_uri())
        store.write_bytes("folder/a", b"x")
        proxy.faults["GET"] = ["cut_answer"] * 6  # one more than a store of its own asks
        assert store.at("folder").read_bytes("a") == b"x"
        assert "event=waiting component=evaluate what=store" in capsys.readouterr().out
        with waits_no_more(when=True):
            for_people = open_store(store.uri)
        proxy.faults["GET"] = ["cut_answer"] * 6
        with pytest.raises(StoreUnreachable):
            for_people.read_bytes("folder/a")
    assert "event=waiting" not in capsys.readouterr().out
