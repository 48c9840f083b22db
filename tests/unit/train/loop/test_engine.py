import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from components.train.loop.engine import EngineSetup, SkippedSteps


def test_the_first_six_updates_in_bf16_without_zero_are_those_of_adamw() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.train.bf16_without_zero"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # A constant gradient: every update of the fp32 weights by Adam is the learning rate.
    assert found["updates"] == pytest.approx([1.0] * 6, abs=1e-4)
    assert found["counted"] == [6]


def test_each_process_draws_dropout_of_its_own() -> None:
    drawn = []
    for process_index in (0, 1, 2):
        torch.manual_seed(3)
        callback: Any = EngineSetup(SimpleNamespace, seed=3)
        callback.on_train_begin(SimpleNamespace(process_index=process_index), None, None)
        drawn.append(torch.rand(1).item())
    assert len(set(drawn)) == 3
    torch.manual_seed(3)
    assert drawn[0] == torch.rand(1).item()


def test_a_skipped_step_is_told_once() -> None:
    engine, told = SimpleNamespace(skipped_steps=2), []
    log: Any = SimpleNamespace(warning=lambda event, **fields: told.append((event, fields["step"], fields["skipped_so_far"])))
    callback: Any = SkippedSteps(lambda: engine, log)
    callback.on_train_begin(None, None, None)
    for step, skipped in enumerate((2, 3, 3), start=5):
        engine.skipped_steps = skipped
        callback.on_step_end(None, SimpleNamespace(global_step=step, is_world_process_zero=True), None)
    assert told == [("step_skipped", 6, 3)]
