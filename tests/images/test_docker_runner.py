"""`hagane run --runner docker`: the whole pipeline through its images, as a person starts it."""

import json
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from components.shared.job.images import Images
from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.storage import open_store
from pipelines.local.containers import LABEL, label_of
from pipelines.local.engine import Engine
from tests.integration.test_pipeline import tiny_spec
from tests.support.command_line import HAGANE, environment, hagane
from tests.support.s3_server import S3Server

DOCKER = ("--runner", "docker")


def readable_spec(folder: Path, uri: str, **training: Any) -> Path:
    """`tiny_spec` in files that another user may read: libraries write model files for their owner alone."""
    spec = tiny_spec(folder, store=uri, precision="fp32", **training)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
    return spec


class Watch:
    """Every container of a run that was seen, by its id, as the engine describes it."""

    def __init__(self, engine: Engine, run_uri: str) -> None:
        self._engine = engine
        self._filter = f"label={LABEL}={label_of(run_uri)}"
        self.seen: dict[str, dict[str, Any]] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def running(self) -> list[str]:
        return self._engine.output("ps", "--all", "--quiet", "--no-trunc", "--filter", self._filter).split()

    def _look(self) -> None:
        while not self._done.wait(0.1):
            with suppress(subprocess.CalledProcessError):  # podman may trip over a container that is being removed
                self._look_once()

    def _look_once(self) -> None:
        for name in set(self.running()) - set(self.seen):
            told = subprocess.run([self._engine.program, "inspect", name], capture_output=True, text=True, check=False)
            if told.returncode == 0 and (found := json.loads(told.stdout)):
                self.seen[name] = found[0]


@pytest.fixture
def run_uri(s3_env: S3Server) -> str:
    return f"{s3_env.fresh_uri()}/tiny"


@pytest.fixture
def watch(engine: Engine, images: Images, run_uri: str) -> Iterator[Watch]:
    with Watch(engine, run_uri) as watching:
        yield watching


@pytest.mark.skipif(os.getuid() != 0, reason="only root may choose the containers' user")
@pytest.mark.parametrize("uid", [65532, 1000660000])
def test_every_task_runs_in_its_own_image_closed_as_in_a_cluster(
    uid: int, watch: Watch, images: Images, run_uri: str, tmp_path: Path
) -> None:
    spec = readable_spec(tmp_path, run_uri.removesuffix("/tiny"))
    done = hagane("run", spec, *DOCKER, "--user", str(uid), work=tmp_path / "work")
    assert done.exit_code == 0, done.errors
    store = open_store(run_uri)
    report = json.loads(store.read_bytes("report/report.json"))
    assert report["held_out_loss"]["tuned"] < report["held_out_loss"]["base"]
    assert len(committed_checkpoints(store)) == 2
    told = [container["Config"] for container in watch.seen.values()]
    tasks = [*images.components, "prepare_dataset", "launch_training"]  # claim_run and end_run are those components' too
    assert sorted(config["Image"] for config in told) == sorted(images.of(component) for component in tasks)
    assert {config["User"] for config in told} == {f"{uid}:0"}
    hosts = [container["HostConfig"] for container in watch.seen.values()]
    assert all(host["ReadonlyRootfs"] and not host["Privileged"] for host in hosts)
    assert all(container.get("EffectiveCaps") in (None, []) for container in watch.seen.values())
    assert all("no-new-privileges" in host["SecurityOpt"] for host in hosts)
    assert watch.running() == []


def test_a_killed_training_container_is_told_and_the_same_command_goes_on(
    watch: Watch, engine: Engine, images: Images, run_uri: str, tmp_path: Path
) -> None:
    spec = readable_spec(tmp_path, run_uri.removesuffix("/tiny"), epochs=12)  # so that it is at work when epoch 1 is committed
    store = open_store(run_uri)
    running = subprocess.Popen(
        [*HAGANE, "run", str(spec), *DOCKER], env=environment(tmp_path / "work"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: bool(committed_checkpoints(store)), running)
    engine.output("kill", training_container(watch, images))
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "training: " in errors
    assert "is committed; the same command goes on from there" in errors
    done = hagane("run", spec, *DOCKER, work=tmp_path / "work")
    assert done.exit_code == 0, done.errors
    assert "resumed" in done.output
    assert watch.running() == []


def test_ctrl_c_in_training_leaves_no_container(watch: Watch, images: Images, run_uri: str, tmp_path: Path) -> None:
    spec = readable_spec(tmp_path, run_uri.removesuffix("/tiny"), epochs=500)
    running = subprocess.Popen(
        [*HAGANE, "run", str(spec), *DOCKER], env=environment(tmp_path / "work"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_until(lambda: training_container(watch, images) != "", running)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=180)
    assert running.returncode != 0
    assert watch.running() == []


def test_what_containers_cannot_do_is_told_before_anything_begins(images: Images, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path)
    weights = next((tmp_path / "model").glob("*.safetensors"))
    weights.chmod(stat.S_IRUSR)
    done = hagane("run", spec, *DOCKER, "--user", "0", work=tmp_path / "work")
    assert done.exit_code == 2
    assert any("store: got folder" in line and "s3://" in line for line in done.errors)
    assert any("--user: got 0" in line for line in done.errors)
    done = hagane("run", spec, *DOCKER, "--user", "1000660000", work=tmp_path / "work")
    assert any(str(weights) in line and "cannot read it; run `chmod" in line for line in done.errors)
    assert not (tmp_path / "store/tiny").exists()


def training_container(watch: Watch, images: Images) -> str:
    return next((name for name, container in list(watch.seen.items()) if container["Config"]["Image"] == images.of("train")), "")


def wait_until(true: Any, running: subprocess.Popen[Any], *, timeout_s: float = 600) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
