"""`hagane plan --probe` for real: a tiny model, two processes, three timed steps."""

import json
from pathlib import Path

from components.shared.documents.plan import Plan
from tests.integration.test_pipeline import tiny_spec
from tests.support.command_line import hagane


def test_a_probed_plan_has_measured_steps_and_leaves_no_run(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, zero={"stage": 2})
    kept, page = tmp_path / "plan", tmp_path / "plan.html"
    priced = ("--set", "hardware.price_per_gpu_hour=3")
    files = ("--out", kept, "--html", page)
    done = hagane("plan", spec, "--probe", "--json", *priced, *files, work=tmp_path / "work")
    assert done.exit_code == 0, "\n".join(done.errors)
    plan = Plan.model_validate_json(done.output)
    assert plan == Plan.model_validate_json((kept / "plan.json").read_bytes())
    assert plan.probe is not None
    assert plan.time is not None
    steps = plan.probe.steps
    assert (steps.rows, steps.num_processes, len(steps.step_seconds)) == ("dataset", 2, 3)
    assert min(steps.step_seconds) > 0
    assert plan.probe.host_bytes.measured is not None
    assert plan.probe.host_bytes.measured > 100e6  # two processes with torch
    assert plan.time.seconds_per_step == plan.probe.seconds_per_step.measured
    assert plan.time.price is not None
    assert "Probe: planned and measured" in page.read_text()
    assert not (tmp_path / "store").exists()
    arguments = json.loads((kept / "training_args.json").read_text())
    assert arguments["save_strategy"] == "epoch"  # the kept files are the run's, not the probe's


def test_a_probe_of_a_plan_for_gpus_ends_before_anything_is_loaded(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path)
    gpu = ("--set", "hardware.gpu=h100-80gb")
    done = hagane("plan", spec, "--rows", "50", "--probe", *gpu, work=tmp_path / "work")
    assert (done.exit_code, len(done.problems)) == (2, 1)
    assert "the plan is for 2 x h100-80gb, found no GPU on this machine" in done.problems[0]
