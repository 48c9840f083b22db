import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.shared.errors import PeerLost
from components.train.node import environment_in, own_error, share_cores
from tests.support.free_port import free_port


def test_files_of_a_trainjobs_sources_are_variables_and_the_last_source_counts(tmp_path: Path) -> None:
    """As the kubelet lays out a ConfigMap or Secret: the files are links into a folder that it exchanges whole."""
    for number, entries in enumerate(({"AWS_REGION": "one", "HF_HUB_OFFLINE": "1"}, {"AWS_REGION": "two"}, {})):
        source = tmp_path / f"{number:02d}"
        (source / "..2026").mkdir(parents=True)
        (source / "..data").symlink_to("..2026")
        for name, value in entries.items():
            (source / "..2026" / name).write_text(value)
            (source / name).symlink_to(f"..data/{name}")
    assert environment_in(tmp_path) == {"AWS_REGION": "two", "HF_HUB_OFFLINE": "1"}


def test_a_pod_whose_peer_never_comes_may_be_tried_again() -> None:
    master = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port()), "PET_RDZV_CONF": "timeout=1"}
    env = {**os.environ, "PET_NNODES": "2", "PET_NODE_RANK": "0", "PET_NPROC_PER_NODE": "1", **master}
    done = subprocess.run([sys.executable, "-m", "components.train.node", "s3://b/r"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == PeerLost.exit_code, done.stderr
    assert "waiting for clients. 1/2 clients joined" in done.stderr


@pytest.mark.parametrize(("processes", "threads"), [("1", 2), ("2", 1), ("8", 1), ("auto", 2)])
def test_a_pod_whose_cores_nobody_stated_shares_those_it_sees(processes: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setenv("PET_NPROC_PER_NODE", processes)
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    share_cores()
    assert os.environ["OMP_NUM_THREADS"] == str(threads)


def test_what_the_plan_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    share_cores()
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("codes", "kept"), [([PeerLost.exit_code, 1, 2], 1), ([PeerLost.exit_code, -9], -9), ([PeerLost.exit_code] * 2, PeerLost.exit_code)]
)
def test_a_process_that_lost_another_is_not_the_one_that_failed(codes: list[int], kept: int) -> None:
    failures = {rank: SimpleNamespace(timestamp=10 - rank, exitcode=code) for rank, code in enumerate(reversed(codes))}
    error: Any = SimpleNamespace(failures={rank: failures[rank] for rank in sorted(failures)})
    assert own_error(error) == kept
