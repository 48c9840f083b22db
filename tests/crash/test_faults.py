"""The network and the store fail in the middle of an upload; it heals, or one line says what to do,
and no manifest is untrue."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.shared.documents.checkpoint import CheckpointFacts
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.store.checkpoints import committed_checkpoints, fetch_checkpoint
from components.shared.store.layout import SPEC
from components.shared.store.manifest import file_entry
from components.shared.store.storage import Store, open_store
from components.train.checkpoints.commit import Part
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.slow
NUM_BYTES = 70 * 2**20
"""More than two parts of 32 MiB: the faults meet a multipart upload."""


@dataclass
class Upload:
    """One process's part of one checkpoint, and a run behind the proxy whose answers go wrong."""

    proxy: FaultyProxy
    uri: str
    environment: dict[str, str]
    part: Part

    def run(self) -> dict[str, Any]:
        """The last answer of the uploader, which ran to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "components.train.checkpoints.uploader", self.uri],
            input=self.part.model_dump_json() + "\n",
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def upload(s3_env: S3Server, tmp_path: Path) -> Iterator[Upload]:
    uri = f"{s3_env.fresh_uri()}/tiny"
    spec = {"name": "tiny", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}
    open_store(uri).write_bytes(SPEC, spec_yaml(parse_spec(spec)).encode())
    (tmp_path / "root").mkdir()
    (tmp_path / "root/shards.pt").write_bytes(bytes(range(256)) * (NUM_BYTES // 256))
    (tmp_path / "root/latest").write_bytes(b"global_step2")
    part = Part(
        facts=CheckpointFacts(
            epoch=1,
            step=2,
            num_processes=1,
            zero_stage=3,
            loss=1.0,
            held_out_loss=2.0,
            steps_per_epoch=2,
            micro_batch=1,
        ),
        attempt="a1",
        process_rank=0,
        training="t",
        root=str(tmp_path / "root"),
        names=("shards.pt", "latest"),
    )
    with faulty_proxy(s3_env.endpoint) as proxy:
        environment = {**s3_env.env, "AWS_ENDPOINT_URL_S3": proxy.endpoint, "PATH": "/usr/bin"}
        yield Upload(proxy, uri, environment, part)


def assert_whole(store: Store, part: Part, folder: Path) -> None:
    """The one committed checkpoint is, byte for byte, what was saved."""
    (checkpoint,) = committed_checkpoints(store)
    fetch_checkpoint(store, checkpoint, folder)
    assert file_entry(folder / "shards.pt", "").num_bytes == NUM_BYTES
    assert (folder / "latest").read_bytes() == b"global_step2"


PASSING: dict[str, list[Fault]] = {
    "six 503 SlowDown": ["busy"] * 6,
    "reset in the middle of a part": ["reset_request"] * 2,
    "30 s without an answer": ["stall"],
    "answers lost": ["lose_answer"] * 2,
    "a bit flipped": ["flip_request_bit"],
    "one after another": ["busy", "reset_request", "lose_answer"],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_passes_is_healed(upload: Upload, faults: list[Fault], tmp_path: Path) -> None:
    upload.proxy.faults = {"PUT": list(faults), "POST": list(faults[:1])}
    answer = upload.run()
    assert answer.get("committed"), answer
    assert_whole(open_store(upload.uri), upload.part, tmp_path / "read")


@pytest.mark.parametrize(
    ("fault", "reported"),
    [
        ("expired", "the credentials have expired; get new temporary credentials"),
        ("no_bucket", "no bucket 'hagane'"),
    ],
)
@pytest.mark.parametrize("num_requests", [1, 3, 5])
def test_a_fault_that_stays_is_one_line_and_nothing_is_committed(
    upload: Upload, fault: Fault, reported: str, num_requests: int
) -> None:
    requests_before = upload.proxy.num_requests

    def fail_later() -> None:
        if upload.proxy.num_requests - requests_before > num_requests:
            upload.proxy.from_now_on = fault

    upload.proxy.before_each = fail_later
    answer = upload.run()
    assert reported in answer["problem"]
    assert "\n" not in answer["problem"]
    assert not any(
        secret in answer["problem"] for secret in (upload.environment["AWS_SECRET_ACCESS_KEY"],)
    )
    assert committed_checkpoints(open_store(upload.uri)) == []
