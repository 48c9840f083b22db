"""What a plan says once three steps of it were measured."""

import io

import pytest

from components.render_config.page.page import render_page
from components.render_config.probed import whole_step_seconds, with_probe
from components.shared.documents.plan import Plan
from components.shared.documents.probe import MeasuredSteps
from components.shared.figures import time_range
from components.shared.spec.file import load_spec
from components.shared.spec.run_spec import RunSpec
from pipelines.screens.console import PlainConsole
from pipelines.screens.plan import plan_screen
from pipelines.screens.plan_markdown import plan_markdown
from tests.support.example_plans import ROOT, plan_example

GIB = 2**30
PRICE = "hardware.price_per_gpu_hour=2"


def planned(*overrides: str) -> tuple[RunSpec, Plan]:
    spec = load_spec(ROOT / "specs/plans/elyza-7b-full-8x80gb.yaml", [PRICE, *overrides])
    return spec, plan_example(spec)


def measured(plan: Plan, **changes: object) -> MeasuredSteps:
    """Three steps of all micro-steps, 3, 2 and 4 s long, within the planned memory."""
    fields = {
        "device": "NVIDIA A100-SXM4-80GB",
        "num_processes": 8,
        "rows": "random",
        "tokens_per_row": 2048.0,
        "grad_accum": plan.steps.grad_accum,
        "step_seconds": (3.0, 2.0, 4.0),
        "optimizer_seconds": 0.5,
        "peak_host_bytes": 100 * GIB,
        "peak_gpu_bytes": 40 * GIB,
    }
    return MeasuredSteps.model_validate(fields | changes)


def test_time_price_and_verdict_follow_from_the_median_of_the_measured_steps() -> None:
    spec, plan = planned()
    probed = with_probe(spec, plan, measured(plan))
    time, estimate = probed.time, plan.time
    assert time is not None
    assert estimate is not None
    assert (time.seconds_per_step, time.low, time.high) == (3.0, 2.0, 4.0)
    upload = time.checkpoint_seconds / 3600
    share = 3.0 / estimate.seconds_per_step
    assert time.hours - upload == pytest.approx((estimate.hours - upload) * share)
    assert time.price == pytest.approx(time.hours * 8 * 2)
    hours = time_range(time.hours * 3600, time.hours_low * 3600, time.hours_high * 3600)
    assert probed.verdict.endswith(f", in about {hours}, for about {time.price_with_currency}")
    assert probed.verdict.count("in about") == 1


def test_micro_steps_that_were_left_out_are_counted_without_the_optimizer() -> None:
    _, plan = planned("training.micro_batch=1", "training.global_batch=64")
    assert plan.steps.grad_accum == 8
    few = measured(plan, grad_accum=2, step_seconds=(2.5, 2.5, 2.5), optimizer_seconds=0.5)
    assert whole_step_seconds(plan, few) == (8.5, 8.5, 8.5)
    assert whole_step_seconds(plan, measured(plan)) == (3.0, 2.0, 4.0)


def test_more_memory_than_planned_and_a_step_out_of_range_are_cautions() -> None:
    spec, plan = planned()
    assert plan.time is not None
    near = plan.time.seconds_per_step
    good = with_probe(spec, plan, measured(plan, step_seconds=(near, near, near)))
    assert good.cautions == plan.cautions
    slow = 10 * plan.time.high
    bad = measured(plan, step_seconds=(slow, slow, slow), peak_gpu_bytes=79 * GIB)
    added = with_probe(spec, plan, bad).cautions[len(plan.cautions) :]
    assert [line.partition(" ")[0] for line in added] == ["probe:"] * len(added)
    assert "peak memory of a GPU was 79.0 GiB" in added[0]
    assert "outside of the estimate's range" in added[1]


def test_terminal_markdown_and_page_show_planned_and_measured_side_by_side() -> None:
    spec, plan = planned()
    probed = with_probe(spec, plan, measured(plan))
    assert probed.probe is not None
    terminal = io.StringIO()
    PlainConsole(markup=False, highlight=False, width=160, file=terminal).print(plan_screen(probed))
    shown = (terminal.getvalue(), plan_markdown(probed), render_page(probed, {}))
    names = ("optimizer step", "tokens per second", "GPU memory, peak", "host memory, peak")
    for text in shown:
        for row in probed.probe.table:
            assert all(cell in text for cell in row)
        assert all(name in text for name in names)
        assert "rows of random tokens: 3, 2, 4 s" in text


def test_a_plan_without_a_known_speed_has_a_time_once_it_was_probed() -> None:
    spec, plan = planned()
    unknown = plan.model_copy(update={"time": None})
    probed = with_probe(spec, unknown, measured(plan))
    assert probed.probe is not None
    assert probed.probe.table[0] == ("optimizer step", "not known", "3 s", "")
    assert " steps, in about " in probed.verdict
