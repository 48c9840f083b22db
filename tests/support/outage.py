"""A store that goes away in the middle of each step of a run and comes back, whoever runs the steps.

The server is really stopped, at a chosen request of the step, and started again. HAGANE_TEST_OUTAGE_S: for how long, 15 s unless set;
180 takes 20 minutes.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.shared.documents.failures import read_failures
from components.shared.store.manifest import read_manifest
from components.shared.store.storage import open_store
from laptop import store as laptop_store
from tests.support.faulty_proxy import FaultyProxy

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


@dataclass(frozen=True)
class StepEnd:
    exit_code: int
    log: str


def assert_outages_cost_only_time(outage: Outage, run: str, run_step: Callable[[str], StepEnd]) -> None:
    """Every step, run by `run_step`, ends green though its store goes away in the middle of it; then the run is finished."""
    for step, request in STEPS.items():
        outage.arm(request)
        begun = time.monotonic()
        end = run_step(step)
        assert outage.has_been(), f"{step} made fewer than {request} requests: {end.log[-3000:]}"
        waited = [line for line in end.log.splitlines() if "event=waiting component" in line or "upload_retry" in line]
        print(f"{step}: exit code {end.exit_code}, {time.monotonic() - begun:.0f} s, {len(waited)} lines of waiting")
        print("\n".join(waited[:1] + waited[-1:]), flush=True)
        assert end.exit_code == 0, end.log[-3000:]
        assert waited, end.log[-3000:]
    store = open_store(run)
    assert read_manifest(store, "report") is not None
    assert read_failures(store) == ()
