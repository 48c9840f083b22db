"""The store goes away in the middle of each step of `hagane run --runner docker`; see
tests/support/outage.py."""

import json
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.shared.documents.failures import read_failures
from components.shared.events import event_of
from components.shared.job.images import Images
from components.shared.store.manifest import read_manifest
from components.shared.store.storage import open_store
from laptop import store as laptop_store
from pipelines.local.engine import Engine
from tests.images.test_docker_runner import DOCKER, Watch, readable_spec
from tests.support.command_line import HAGANE, environment
from tests.support.faulty_proxy import faulty_proxy
from tests.support.outage import STEPS, Outage
from tests.support.s3_server import s3_server

RUN = f"s3://{laptop_store.BUCKET}/outage-{uuid.uuid4().hex[:8]}/tiny"
"""Its own each time: by a run's address the engine knows its containers, and ends those of an
earlier one."""


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    with s3_server(tmp_path / "s3") as server, faulty_proxy(server.endpoint) as proxy:
        for key, value in {**server.env, "AWS_ENDPOINT_URL_S3": proxy.endpoint}.items():
            monkeypatch.setenv(key, value)
        yield Outage(proxy, tmp_path / "s3")


def test_a_store_that_is_away_in_the_middle_of_each_container_costs_only_time(
    outage: Outage, engine: Engine, images: Images, tmp_path: Path
) -> None:
    spec = readable_spec(tmp_path, RUN.removesuffix("/tiny"))
    command = [*HAGANE, "run", str(spec), *DOCKER]
    with Watch(engine, RUN) as watch, armed_at_each_step(outage, watch) as were_away:
        done = subprocess.run(
            command, env=environment(tmp_path / "work"), capture_output=True, text=True, check=False
        )
    print(f"hagane run: exit code {done.returncode}")
    print(done.stdout + done.stderr, flush=True)
    (log_file,) = (tmp_path / "work").rglob("pipeline.log")
    log = log_file.read_text()
    waited = {step: lines_of_waiting(log, step) for step in STEPS}
    for step, lines in waited.items():
        print(f"{step}: {len(lines)} lines of waiting", *lines[:1], *lines[-1:], sep="\n")
    assert done.returncode == 0, log[-3000:]
    assert were_away == set(STEPS)
    assert all(waited.values())
    store = open_store(RUN)
    assert read_manifest(store, "report") is not None
    assert read_failures(store) == ()


@contextmanager
def armed_at_each_step(outage: Outage, watch: Watch) -> Iterator[set[str]]:
    """Inside, the store goes away once in each step. Yields the steps in which it did, complete
    after the block."""
    were_away: set[str] = set()
    is_over = threading.Event()

    def arm() -> None:
        at: str | None = None
        while not is_over.wait(0.05):
            step = next(
                (each for each in map(step_of, list(watch.seen.values())[::-1]) if each), None
            )
            if step == at:
                continue
            if at is not None and outage.has_been():
                were_away.add(at)
            at = step
            if step is not None:
                outage.arm(STEPS[step])
        if at is not None and outage.has_been():
            were_away.add(at)

    thread = threading.Thread(target=arm)
    thread.start()
    try:
        yield were_away
    finally:
        is_over.set()
        thread.join()


def step_of(container: dict[str, Any]) -> str | None:
    """The step that KFP runs in a container; None for the first and the last task, and for the one
    that trains."""
    command = container["Config"]["Cmd"]
    if "--function_to_execute" not in command:
        return None
    name = command[command.index("--function_to_execute") + 1]
    return name if name in STEPS else None


def lines_of_waiting(log: str, step: str) -> list[str]:
    """What a step printed while the store was away; the trained checkpoints' upload is
    launch_training's."""
    components = ("launch_training", "train") if step == "launch_training" else (step,)
    events = [event for event in map(event_of, log.splitlines()) if event is not None]
    waits = ("waiting", "upload_retry")
    return [
        json.dumps(each)
        for each in events
        if each["event"] in waits and each["component"] in components
    ]
