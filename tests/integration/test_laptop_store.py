"""The embedded S3 server, started and stopped as `make demo` and its users do."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from components.shared.errors import StoreDenied, StoreError, StoreUnreachable
from components.shared.store.storage import Store, open_store
from laptop import store
from tests.support.s3_server import stopped_at_the_end


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with stopped_at_the_end(tmp_path / "the store"):
        yield tmp_path / "the store"


def opened(running: store.RunningStore, monkeypatch: pytest.MonkeyPatch) -> Store:
    for key, value in running.env().items():
        monkeypatch.setenv(key, value)
    return open_store("s3://hagane/runs")


def is_gone(pid: int) -> bool:
    """Whether no such process runs; one that ended and whose parent has not noticed counts as
    gone."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def listening_addresses(pid: int) -> set[str]:
    """The IPv4 and IPv6 addresses, in the hex of /proc, at which a process takes calls."""
    sockets: set[str] = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(
            FileNotFoundError
        ):  # closed meanwhile, as a connection that was just answered
            sockets.add(str(path.readlink()))
    rows = [
        row.split()
        for name in ("tcp", "tcp6")
        for row in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {
        row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    }


def run_cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "laptop.store", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_started_store_keeps_what_is_written_to_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = store.start(folder)
    opened(running, monkeypatch).check()
    assert stat.S_IMODE(running.env_file.stat().st_mode) == 0o600
    assert listening_addresses(running.pid) == {"0100007F"}  # 127.0.0.1
    command_line = Path(f"/proc/{running.pid}/cmdline").read_text()
    assert running.env()["AWS_SECRET_ACCESS_KEY"] not in command_line
    assert running.env()["AWS_ACCESS_KEY_ID"] not in command_line
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{running.endpoint}/hagane")


def test_second_start_leaves_the_server_as_it_is(folder: Path) -> None:
    assert store.start(folder) == store.start(folder) == store.status(folder)


def test_two_starts_at_once_start_one_server(folder: Path) -> None:
    command = [sys.executable, "-m", "laptop.store", "start", str(folder)]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    lines = {start.communicate(timeout=60)[0] for start in starts}
    assert [start.returncode for start in starts] == [0, 0, 0]
    assert len(lines) == 1


def test_restart_keeps_keys_ports_and_objects(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.start(folder)
    opened(first, monkeypatch).write_bytes("a", b"kept" * 10_000)
    env = first.env()
    assert store.stop(folder)
    second = store.start(folder)
    assert (second.env(), second.endpoint) == (env, first.endpoint)
    assert opened(second, monkeypatch).read_bytes("a") == b"kept" * 10_000


def test_killed_server_is_started_again_with_its_objects(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.start(folder)
    opened(first, monkeypatch).write_bytes("a", b"kept")
    os.kill(first.pid, signal.SIGKILL)
    while store.status(folder):
        time.sleep(0.01)
    assert opened(store.start(folder), monkeypatch).read_bytes("a") == b"kept"


def test_ports_taken_meanwhile_are_given_up_but_not_the_keys(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.start(folder)
    opened(first, monkeypatch).write_bytes("a", b"kept")
    env = first.env()
    store.stop(folder)
    with socket.create_server(("127.0.0.1", urlsplit(first.endpoint).port or 0)):
        second = store.start(folder)
    assert second.endpoint != first.endpoint
    assert second.env() | {"AWS_ENDPOINT_URL_S3": ""} == env | {"AWS_ENDPOINT_URL_S3": ""}
    assert opened(second, monkeypatch).read_bytes("a") == b"kept"


def test_two_folders_run_at_once_and_do_not_know_each_others_keys(
    folder: Path, tmp_path: Path
) -> None:
    with stopped_at_the_end(tmp_path / "other"):
        first, second = store.start(folder), store.start(tmp_path / "other")
        assert first.endpoint != second.endpoint
        assert first.env()["AWS_SECRET_ACCESS_KEY"] != second.env()["AWS_SECRET_ACCESS_KEY"]


def test_stop_leaves_no_process_and_can_be_repeated(folder: Path) -> None:
    running = store.start(folder)
    assert store.stop(folder)
    assert is_gone(running.pid)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(running.endpoint).port or 0))
    assert not store.stop(folder)
    assert not store.stop(folder.with_name("never started"))


def test_server_that_cannot_start_is_reported_with_the_end_of_its_log(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "filerldb2").write_text("no folder")
    with pytest.raises(
        StoreUnreachable, match=r"ended; .*weed.log ends with: .*filerldb2"
    ) as error:
        store.start(folder)
    assert len(str(error.value).splitlines()) == 1
    assert store.status(folder) is None


def wait_until_stopped(pid: int) -> None:
    """Every thread stands: one that runs on another core may answer once more."""
    while any(
        task.read_text().rpartition(")")[2].split()[0] != "T"
        for task in Path(f"/proc/{pid}/task").glob("*/stat")
    ):
        time.sleep(0.01)


def test_server_that_hangs_is_reported_and_can_still_be_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = store.start(folder)
    monkeypatch.setattr(store, "START_TIMEOUT_S", 1.0)
    monkeypatch.setattr(store, "STOP_TIMEOUT_S", 0.5)
    os.kill(running.pid, signal.SIGSTOP)
    wait_until_stopped(running.pid)
    with pytest.raises(
        StoreUnreachable,
        match=f"pid {running.pid}.* gave no good answer .*; stop it, then start it again",
    ):
        store.start(folder)
    assert store.stop(folder)
    assert is_gone(running.pid)


def test_folder_that_cannot_be_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreDenied, match=r"store: cannot use .*/file.*; choose another folder"):
        store.start(tmp_path / "file")


def test_env_file_without_a_key_is_reported(folder: Path) -> None:
    folder.mkdir()
    (folder / "env").write_text(
        "AWS_ENDPOINT_URL_S3=http://127.0.0.1:10003\nAWS_REGION=us-east-1\n"
    )
    with pytest.raises(
        StoreError, match=r"lacks AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; .* delete this file"
    ):
        store.start(folder)


def test_command_line_starts_shows_and_stops(folder: Path) -> None:
    assert (run_cli("status", folder).returncode, run_cli("stop", folder).returncode) == (1, 0)
    started = run_cli("start", folder)
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout == run_cli("status", folder).stdout
    sourced = subprocess.run(
        ["sh", "-c", 'set -a; . "$0/env"; env', folder], capture_output=True, text=True, check=True
    ).stdout
    assert f"AWS_ENDPOINT_URL_S3={sourced.split('AWS_ENDPOINT_URL_S3=')[1].split()[0]}" in sourced
    assert run_cli("stop", folder).stdout == f"{folder}: stopped\n"
    assert run_cli("status", folder).stderr == f"{folder}: not running\n"


def test_command_line_tells_a_failure_in_one_line(folder: Path) -> None:
    folder.mkdir()
    (folder / "env").write_text("")
    failed = run_cli("start", folder)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (2, "", 1)
