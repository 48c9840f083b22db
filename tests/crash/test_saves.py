"""A training process is killed at every point of a save on its local disk; the restart goes on as if nothing had happened."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.storage import LocalStore
from tests.crash.conftest import KILLED
from tests.crash.killing import Point, server
from tests.crash.training import TinyRun, tiny_run

pytestmark = pytest.mark.slow
SAVE = "/checkpoints/checkpoint-4"
"""The local folder of the save in which the process is killed: that of epoch 2."""
TORN_BYTES = (2_000, 10_000, 30_000)
"""Of the files of a tiny checkpoint: 14 kB of a generator's state, 20 kB and more of shards, 40 kB of adapter."""


@pytest.fixture(scope="module")
def forks() -> Any:
    return server("tests.crash.training")


@pytest.fixture(scope="module", params=[("lora", 2), ("full", 1)], ids=["lora on 2", "full on 1"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, forks: Any) -> TinyRun:
    """Trained to the end, undisturbed."""
    method, num_processes = request.param
    run = tiny_run(tmp_path_factory.mktemp("run"), method=method, num_processes=num_processes)
    run.plan()
    assert set(run.train(forks)) == {0}, run.store.with_name("log-0").read_text()[-2000:]
    return run


def after_epoch_1(trained: TinyRun, name: str) -> TinyRun:
    run = trained.copy(name)
    run.forget("epoch-0002", "manifest.json", "history.json", "probe.safetensors")
    return run


def resumed_as_undisturbed(trained: TinyRun, run: TinyRun, forks: Any) -> list[str]:
    """What the restart of a killed run got wrong."""
    committed = [checkpoint.told for checkpoint in committed_checkpoints(LocalStore(Path(run.uri)))]
    problems = [] if committed[:1] == ["epoch 1 (step 2)"] else [f"after the kill these are committed: {committed}"]
    exit_codes = run.train(forks)
    if set(exit_codes) != {0}:
        return [*problems, f"the restart ended with {exit_codes}: {run.store.with_name('log-0').read_text()[-600:]}"]
    return problems + ([] if run.history() == trained.history() else ["the losses after the restart are others"])


@pytest.mark.parametrize("killed_rank", [0, 1])
def test_training_killed_at_any_point_of_a_save_goes_on_as_if_undisturbed(
    forks: Any, trained: TinyRun, killed_rank: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if killed_rank >= trained.num_processes:
        pytest.skip("this run has one process")
    name = f"rank{killed_rank}"
    counted = after_epoch_1(trained, f"{name}-counted")
    counted.train(forks, killed_rank=killed_rank, points_file=tmp_path / "points")
    assert counted.history() == trained.history()
    points = [line for line in (tmp_path / "points").read_text().splitlines() if SAVE in line]
    places = [Point(nth=number, counted_from=SAVE) for number in range(1, len(points) + 1)]
    places += [Point(torn_bytes=num_bytes) for num_bytes in TORN_BYTES]
    findings: dict[Point, list[str]] = {}
    for number, point in enumerate(places):
        run = after_epoch_1(trained, f"{name}-{number}")
        exit_codes = run.train(forks, killed_rank=killed_rank, point=point)
        assert exit_codes[killed_rank] in (-9, -25), f"{point} of {points} was not reached: {exit_codes}"
        problems = resumed_as_undisturbed(trained, run, forks)
        if problems:
            findings[point] = problems
    record_property(KILLED, (trained.spec["training"]["method"], len(places)))
    assert findings == {}
