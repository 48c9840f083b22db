"""A real S3 server for one machine: SeaweedFS (`weed mini`), kept in one folder, open to this
machine only.

FOLDER/  env (keys and endpoint, dotenv lines, mode 0600)  data/  weed.log  weed.pid

The keys are made once; the ports too, and they are kept as long as nobody else takes them. Answers
a second after the start, holds 110 MB of memory when idle and ten ports. Its S3 port asks for the
keys; its inner ports (filer, volume) do not, and any user of this machine can reach them: use it
where you trust those who log in.
"""

import argparse
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from components.shared.errors import StoreDenied, StoreError, StoreUnreachable
from laptop.console import reported
from laptop.lock import only_one

BUCKET = "hagane"
SERVERS = ("master", "filer", "volume", "s3", "admin")
"""The servers inside `weed mini`: the n-th listens on base port + n, and its gRPC side 10,000 above
that."""
GRPC_OFFSET = 10_000
"""weed's own rule (weed/pb/server_address.go); set otherwise by -admin.port.grpc, its worker does
not find the admin server."""
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
ENV, DATA, LOG, PID, LOCK = "env", "data", "weed.log", "weed.pid", ".lock"
KEYS = ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


@dataclass(frozen=True)
class RunningStore:
    endpoint: str
    env_file: Path
    pid: int

    def env(self) -> dict[str, str]:
        """The AWS_ variables by which any S3 client reaches this store, secret included."""
        return _read_env(self.env_file)


def start(folder: Path) -> RunningStore:
    """The store of this folder answers to its keys and has the bucket `hagane`; the server outlives
    this process.

    A running one is left as it is. Two calls at once start one server.

    Raises:
        StoreUnreachable: it ended, or did not answer within START_TIMEOUT_S, with the last lines of
            its log.
        StoreDenied: the folder cannot be written.
        StoreError: `weed` is not installed, the env file lacks a key, no ports are free.
    """
    folder = folder.absolute()
    try:
        with only_one(folder / LOCK):
            if not _is_alive(folder):
                _launch(folder, _settle_env(folder / ENV))
            return _wait_for_answer(folder)
    except OSError as error:
        raise StoreDenied(
            f"store: cannot use {error.filename or folder}: {error.strerror}; choose another folder"
        ) from None


def stop(folder: Path) -> bool:
    """No server of this folder runs; False if none did. Data, keys and ports stay for the next
    start."""
    folder = folder.absolute()
    if not (folder / PID).exists():
        return False
    with only_one(folder / LOCK):
        if alive := _is_alive(folder):
            _end_server(folder, int((folder / PID).read_text()))
    return alive


def status(folder: Path) -> RunningStore | None:
    """The folder's store if its server runs, whether or not it answers."""
    folder = folder.absolute()
    if not (folder / PID).exists():
        return None
    with only_one(folder / LOCK):
        if _is_alive(folder):
            return _running_store(folder)
        return None


def _running_store(folder: Path) -> RunningStore:
    return RunningStore(
        _read_env(folder / ENV)["AWS_ENDPOINT_URL_S3"],
        folder / ENV,
        int((folder / PID).read_text()),
    )


def _read_env(path: Path) -> dict[str, str]:
    if path.exists():
        text = path.read_text()
    else:
        text = ""
    env = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if missing := [key for key in KEYS if not env.get(key)]:
        raise StoreError(
            f"{path}: lacks {', '.join(missing)}; stop the store, delete this file, and the next "
            "start makes new keys"
        )
    return env


def _settle_env(path: Path) -> dict[str, str]:
    """The env file holds keys, the old ones if it had any, and an endpoint whose ports are all free
    just now."""
    if path.exists():
        env = _read_env(path)
        base = (urlsplit(env["AWS_ENDPOINT_URL_S3"]).port or 0) - SERVERS.index("s3")
        if base > 0 and _are_free(base):
            return env
    else:
        env = {
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
            "AWS_REGION": "us-east-1",
        }
    env["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{_find_free_base() + SERVERS.index('s3')}"
    beside = path.with_name(".new-env")
    beside.unlink(missing_ok=True)
    beside.touch(mode=0o600)
    beside.write_text("".join(f"{key}={env[key]}\n" for key in KEYS))
    beside.rename(path)
    return env


def _find_free_base() -> int:
    """A base port such that all ten ports are free; from 10,000 to 32,000, below those the kernel
    gives to outgoing calls."""
    for _ in range(200):
        base = 10_000 + 10 * secrets.randbelow(1200)
        if _are_free(base):
            return base
    raise StoreError(
        "store: found no ten free ports between 10000 and 32000 on 127.0.0.1; end some servers of "
        "this machine"
    )


def _are_free(base: int) -> bool:
    for port in (
        base + number + offset for number in range(len(SERVERS)) for offset in (0, GRPC_OFFSET)
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _is_alive(folder: Path) -> bool:
    """Whether the folder's server runs: it holds a lock on weed.pid from its first moment, and the
    kernel frees that with it.

    Unlike a look at the number in the file, this cannot take a stranger's process for the server.
    """
    with (folder / PID).open("a") as pid_file:
        try:
            fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _launch(folder: Path, env: dict[str, str]) -> None:
    """A server runs in a session of its own, with weed.pid locked and its number inside."""
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not weed.exists():
        raise StoreError(f"store: no {weed}; install requirements/laptop.txt into this environment")
    base = (urlsplit(env["AWS_ENDPOINT_URL_S3"]).port or 0) - SERVERS.index("s3")
    options = [f"-{name}.port={base + number}" for number, name in enumerate(SERVERS)]
    options += [
        f"-dir={folder / DATA}",
        f"-bucket={BUCKET}",
        "-s3.autoCreateBucket=false",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
    ]
    options += ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    options += ["-master.telemetry=false", "-volume.preStopSeconds=0"]
    (folder / DATA).mkdir(exist_ok=True)
    with (folder / PID).open("w") as pid_file, (folder / LOG).open("wb") as log:
        fcntl.flock(pid_file, fcntl.LOCK_EX)
        subprocess.run(
            # The shell ends at once, so the server is nobody's child: no zombie when it ends,
            # whoever started it.
            ["/bin/sh", "-c", f'"$@" & echo $! > {PID}', "sh", str(weed), "mini", *options],
            cwd=folder,
            # Nothing else of ours: weed also reads S3_BUCKET, S3_EXTERNAL_URL and ~/.seaweedfs.
            env={key: env[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
            | {"HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[pid_file.fileno()],
            start_new_session=True,
            check=True,
        )


def _wait_for_answer(folder: Path) -> RunningStore:
    import boto3  # 0.3 s that --help need not pay
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    store = _running_store(folder)
    env = store.env()
    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name=env["AWS_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        config=Config(
            retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=2, proxies={}
        ),
    )
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            client.head_bucket(Bucket=BUCKET)
            return store
        except (ClientError, BotoCoreError) as error:
            if not _is_alive(folder):
                raise StoreUnreachable(
                    f"store: the server in {folder} ended; {_last_words(folder)}"
                ) from None
            if time.monotonic() > deadline_s:
                raise StoreUnreachable(
                    f"store: the server in {folder} (pid {store.pid}) gave no good answer at "
                    f"{store.endpoint} in {START_TIMEOUT_S:.0f} s: {error}; {_last_words(folder)}; "
                    "stop it, then start it again"
                ) from None
        time.sleep(0.05)


def _last_words(folder: Path) -> str:
    """The last three lines of the log, before the stack dump that a Go program ends with."""
    text = (folder / LOG).read_text(errors="replace").partition("\ngoroutine ")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{folder / LOG} ends with: {' | '.join(lines[-3:])}"


def _end_server(folder: Path, pid: int) -> None:
    """The server is gone: by SIGTERM, or by SIGKILL if that took more than STOP_TIMEOUT_S."""
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while _is_alive(folder):
        if time.monotonic() > deadline_s:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m laptop.store",
        description=(
            "An S3 server for this machine, kept in one folder. To use it: set -a; . FOLDER/env; "
            "set +a; store: s3://hagane/..."
        ),
    )
    parser.add_argument(
        "action",
        choices=("start", "stop", "status"),
        help="status exits with 1 when no server runs",
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="where its data, keys and log are, e.g. .hagane/store",
    )
    arguments = parser.parse_args()
    with reported():
        if arguments.action == "stop":
            print(
                f"{arguments.folder}: {'stopped' if stop(arguments.folder) else 'was not running'}"
            )
            return
        if arguments.action == "start":
            store = start(arguments.folder)
        else:
            store = status(arguments.folder)
    if store is None:
        sys.exit(f"{arguments.folder}: not running")
    print(
        f"{arguments.folder}: runs at {store.endpoint}, pid {store.pid}, keys in {store.env_file}"
    )


if __name__ == "__main__":
    main()
