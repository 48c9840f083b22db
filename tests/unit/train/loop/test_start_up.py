import json
import subprocess
import sys
import time
from typing import Any

import pytest

from components.train.loop.parts import PartTimes, part_seconds
from components.train.loop.start_up import StartUp, process_started


def test_the_parts_of_a_start_add_up_to_its_time() -> None:
    begun = process_started()
    start_up = StartUp(begun)
    start_up.end_of("imports")
    start_up.end_of("weights")
    assert list(start_up.seconds) == ["imports", "weights"]
    # Each part is rounded to a millisecond.
    assert sum(start_up.seconds.values()) <= time.monotonic() - begun + 0.001


def test_a_process_knows_when_it_was_started() -> None:
    before = time.monotonic()
    program = "from components.train.loop.start_up import process_started; print(process_started())"
    command = [sys.executable, "-W", "ignore", "-c", program]
    reported = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    # The kernel counts in hundredths of a second.
    assert before - 0.02 <= reported <= time.monotonic()


def test_time_is_reported_by_part_and_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 3.0, 10.0, 10.5, 20.0, 21.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    times = PartTimes(on_gpu=False)
    with times.of("forward"):
        pass
    assert times.timed("optimizer", lambda by: by + 1)(1) == 2
    with times.of("forward"):
        pass
    assert times.take() == {"forward": 3.0, "optimizer": 0.5}
    assert times.take() == {}


def test_the_whole_training_by_part_holds_every_start_with_its_saves_and_held_out_loss() -> None:
    history: list[dict[str, Any]] = [
        {"start": {}},
        {"held_out_loss": 2.0, "held_out_s": 0.5},
        {"loss": 1.0, "part_seconds": {"forward": 1.0, "backward": 2.0}},
        {"save_s": 0.25, "step": 1},
        {"loss": 1.0},  # of a checkpoint of hagane 0.1
        {"loss": 1.0, "part_seconds": {"forward": 1.5, "backward": 2.0}},
    ]
    wanted = {"backward": 4.0, "forward": 2.5, "held_out": 0.5, "save": 0.25}
    assert part_seconds(history) == wanted
    assert list(part_seconds(history)) == list(wanted)


def test_building_an_engine_does_not_import_the_inductor() -> None:
    program = """
import sys, json
import components.train.model.early_imports
from deepspeed.runtime import compiler
from components.train.loop.engine import leave_muon_uncompiled
made = compiler.compile
leave_muon_uncompiled()
from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
print(json.dumps(["torch._inductor.compile_fx" in sys.modules, compiler.compile is made]))
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [False, True]
