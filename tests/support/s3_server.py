"""The tests' S3 server: the one of `make demo`, in a folder of the test session."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

from laptop import store


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    env: dict[str, str]
    """The AWS_ variables by which any S3 client reaches it."""

    def bucket(self) -> str:
        """The name of a new, empty bucket. Each takes one of the server's few dozen volumes: prefer `fresh_uri`."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.env["AWS_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
        ).create_bucket(Bucket=name)
        return name

    def fresh_uri(self) -> str:
        """A store nobody used before, in the bucket that is always there."""
        return f"s3://{store.BUCKET}/test-{uuid.uuid4().hex[:12]}"


@contextmanager
def stopped_at_the_end(folder: Path) -> Iterator[None]:
    """No server of the folder runs after the block, nor after this process if that is killed inside it.

    A guard in a session of its own waits for its input to end, which the kernel sees to whatever happens to this process.
    """
    command = ["/bin/sh", "-c", 'cat; exec "$0" -m laptop.store stop "$1" >/dev/null', sys.executable, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        yield
    assert guard.returncode == 0


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server that runs inside the block, with its data in `folder`."""
    with stopped_at_the_end(folder):
        running = store.start(folder)
        yield S3Server(running.endpoint, running.env())
