"""A training process is killed at every point of a save on its local disk; the restart goes on as
if nothing had happened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.storage import LocalStore
from tests.crash.conftest import KILLED
from tests.crash.killing import Point, server
from tests.crash.training import NEW_TOKENS, WHOLE_LAYERS, TinyRun, tiny_run

pytestmark = pytest.mark.slow
SAVE = "/checkpoints/checkpoint-4"
"""The local folder of the save in which the process is killed: that of epoch 2."""
TORN_BYTES = (2_000, 10_000, 30_000)
"""Of the files of a tiny checkpoint: 14 kB of a generator's state, 20 kB and more of shards, 40 kB
of adapter."""


@pytest.fixture(scope="module")
def forks() -> Any:
    return server("tests.crash.training")


@dataclass(frozen=True)
class Kind:
    """Of training; it is killed at each `every`-th call that writes."""

    method: str
    num_processes: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    every: int = 1


ZERO_2 = {"stage": 2, "offload_optimizer": "none", "offload_parameters": "none"}
KINDS = {
    "lora on 2": Kind("lora", 2),
    "full on 1": Kind("full", 1),
    "lora in 4 bits on 2": Kind(
        "lora", 2, {"model": {"quantization": "nf4"}, "zero": ZERO_2}, every=3
    ),
    "embeddings and new tokens on 2": Kind(
        "lora", 2, {"data": NEW_TOKENS, "lora": WHOLE_LAYERS}, every=3
    ),
    "dora on 1": Kind("lora", 1, {"lora": {"dora": True}}, every=3),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def trained(kind: Kind, tmp_path_factory: pytest.TempPathFactory, forks: Any) -> TinyRun:
    """Trained to the end, undisturbed."""
    run = tiny_run(
        tmp_path_factory.mktemp("run"),
        method=kind.method,
        num_processes=kind.num_processes,
        **kind.settings,
    )
    run.plan()
    assert set(run.train(forks)) == {0}, run.store.with_name("log-0").read_text()[-2000:]
    return run


def after_epoch_1(trained: TinyRun, name: str) -> TinyRun:
    run = trained.copy(name)
    run.forget("epoch-0002", "manifest.json", "history.json", "probe.safetensors")
    return run


def resumed_as_undisturbed(trained: TinyRun, run: TinyRun, forks: Any) -> list[str]:
    """What the restart of a killed run got wrong."""
    committed = [
        checkpoint.title for checkpoint in committed_checkpoints(LocalStore(Path(run.uri)))
    ]
    problems = (
        []
        if committed[:1] == ["epoch 1 (step 2)"]
        else [f"after the kill these are committed: {committed}"]
    )
    exit_codes = run.train(forks)
    if set(exit_codes) != {0}:
        return [
            *problems,
            (
                f"the restart ended with {exit_codes}: "
                f"{run.store.with_name('log-0').read_text()[-600:]}"
            ),
        ]
    return problems + (
        [] if run.history() == trained.history() else ["the losses after the restart are others"]
    )


@pytest.mark.parametrize("killed_rank", [0, 1])
def test_training_killed_at_any_point_of_a_save_goes_on_as_if_undisturbed(
    forks: Any,
    kind: Kind,
    trained: TinyRun,
    killed_rank: int,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    if killed_rank >= kind.num_processes:
        pytest.skip("this run has one process")
    name = f"rank{killed_rank}"
    counted = after_epoch_1(trained, f"{name}-counted")
    counted.train(forks, killed_rank=killed_rank, points_file=tmp_path / "points")
    assert counted.history() == trained.history()
    points = [line for line in (tmp_path / "points").read_text().splitlines() if SAVE in line]
    places = [
        Point(nth=number, counted_from=SAVE) for number in range(1, len(points) + 1, kind.every)
    ]
    places += [Point(torn_bytes=num_bytes) for num_bytes in TORN_BYTES]
    findings: dict[Point, list[str]] = {}
    for number, point in enumerate(places):
        run = after_epoch_1(trained, f"{name}-{number}")
        exit_codes = run.train(forks, killed_rank=killed_rank, point=point)
        assert exit_codes[killed_rank] in (-9, -25), (
            f"{point} of {points} was not reached: {exit_codes}"
        )
        problems = resumed_as_undisturbed(trained, run, forks)
        if problems:
            findings[point] = problems
    record_property(KILLED, (kind.method, len(places)))
    assert findings == {}
