"""The store goes away in the middle of each step of a run, and comes back: every step ends green, by waiting itself.

The server is really stopped, at a chosen request of the step, and started again. HAGANE_TEST_OUTAGE_S: for how long, 15 s unless set;
180 takes 20 minutes.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.shared.failures import read_failures
from components.shared.manifest import read_manifest
from components.shared.storage import open_store
from laptop import store as laptop_store
from tests.command_line import environment
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.integration.test_pipeline import tiny_spec
from tests.s3_server import s3_server

pytestmark = pytest.mark.slow
OUTAGE_S = float(os.environ.get("HAGANE_TEST_OUTAGE_S", "15"))
STEPS = {"prepare_dataset": 6, "render_config": 5, "launch_training": 25, "export_adapter": 8, "evaluate": 8, "write_report": 8}
"""Step -> at which of its requests the store goes away: after it has begun, before it has published."""


class Outage:
    """Stops the server before the request of this number, and starts it again after OUTAGE_S."""

    def __init__(self, proxy: FaultyProxy, folder: Path) -> None:
        self._proxy, self._folder, self._lock = proxy, folder, threading.Lock()
        self._at: int | None = None
        self._back: threading.Thread | None = None
        proxy.before_each = self._look

    def arm(self, request: int) -> None:
        self._at = self._proxy.num_requests + request

    def has_been(self) -> bool:
        """Whether it came. The server is back after this."""
        if self._back is None:
            return False
        self._back.join()
        self._back = None
        return True

    def _look(self) -> None:
        with self._lock:
            if self._at is None or self._proxy.num_requests < self._at:
                return
            self._at = None
            assert laptop_store.stop(self._folder)
            self._back = threading.Thread(target=self._come_back)
            self._back.start()

    def _come_back(self) -> None:
        time.sleep(OUTAGE_S)
        laptop_store.start(self._folder)


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    with s3_server(tmp_path / "s3") as server, faulty_proxy(server.endpoint) as proxy:
        for key, value in {**server.env, "AWS_ENDPOINT_URL_S3": proxy.endpoint}.items():
            monkeypatch.setenv(key, value)
        yield Outage(proxy, tmp_path / "s3")


def test_a_store_that_is_away_in_the_middle_of_each_step_costs_only_time(outage: Outage, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, store=f"s3://{laptop_store.BUCKET}/outage", zero="auto")
    run = f"s3://{laptop_store.BUCKET}/outage/tiny"
    for step, request in STEPS.items():
        arguments = ["--spec", str(spec)] if step == "prepare_dataset" else ["--run", run]
        outage.arm(request)
        begun = time.monotonic()
        command = [sys.executable, "-W", "ignore", "-m", f"components.{step}", *arguments]
        done = subprocess.run(command, env=environment(tmp_path / "work"), capture_output=True, text=True, check=False)
        assert outage.has_been(), f"{step} made fewer than {request} requests"
        waited = [line for line in done.stdout.splitlines() if "event=waiting" in line or "upload_retry" in line]
        print(f"{step}: exit code {done.returncode}, {time.monotonic() - begun:.0f} s, {len(waited)} lines of waiting")
        print("\n".join(waited[:1] + waited[-1:]))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert waited, done.stdout[-3000:]
    store = open_store(run)
    assert read_manifest(store, "report") is not None
    assert read_failures(store) == ()
