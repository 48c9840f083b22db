"""The store goes away in the middle of each step of a run on this machine; see tests/support/outage.py."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from laptop import store as laptop_store
from tests.integration.test_pipeline import tiny_spec
from tests.support.command_line import environment
from tests.support.faulty_proxy import faulty_proxy
from tests.support.outage import Outage, StepEnd, assert_outages_cost_only_time
from tests.support.s3_server import s3_server

pytestmark = pytest.mark.slow


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    with s3_server(tmp_path / "s3") as server, faulty_proxy(server.endpoint) as proxy:
        for key, value in {**server.env, "AWS_ENDPOINT_URL_S3": proxy.endpoint}.items():
            monkeypatch.setenv(key, value)
        yield Outage(proxy, tmp_path / "s3")


def test_a_store_that_is_away_in_the_middle_of_each_step_costs_only_time(outage: Outage, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, store=f"s3://{laptop_store.BUCKET}/outage", zero="auto")
    run = f"s3://{laptop_store.BUCKET}/outage/tiny"

    def run_step(step: str) -> StepEnd:
        arguments = ["--spec", str(spec)] if step == "prepare_dataset" else ["--run", run]
        command = [sys.executable, "-W", "ignore", "-m", f"components.{step}", *arguments]
        done = subprocess.run(command, env=environment(tmp_path / "work"), capture_output=True, text=True, check=False)
        return StepEnd(done.returncode, done.stdout + done.stderr)

    assert_outages_cost_only_time(outage, run, run_step)
