"""The plan's page: figures that agree with the plan, and nothing wider than a phone."""

import html
import re
import subprocess
from pathlib import Path

import pytest

from components.render_config.page.page import headline, render_page
from components.render_config.page.svg import divided
from components.render_config.page.verdict import model_size
from components.render_config.render.files import rendered_files
from components.shared.documents.plan import Plan
from components.shared.spec.file import load_spec
from tests.support.example_plans import ROOT, plan_example
from tests.support.ui_frame import FLAGS, find_browser

EXAMPLES = ("elyza-7b-full-8x80gb", "swallow-70b-lora-8x80gb", "gpt2-medium-full-cpu")


def page_of(name: str) -> tuple[Plan, str]:
    spec = load_spec(ROOT / f"specs/plans/{name}.yaml")
    plan = plan_example(spec)
    return plan, render_page(plan, rendered_files(spec, plan, hidden_size=1024))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_figures_on_top_are_those_of_the_framed_bar_and_of_the_verdict(name: str) -> None:
    plan, page = page_of(name)
    memory = plan.memory
    framed = next(each for each in memory.options if each.zero.name == plan.zero.name)
    assert (framed.gpu_bytes, framed.host_bytes) == (memory.gpu_bytes, memory.host_bytes)
    figures = {name: figure for name, figure, _ in headline(plan)}
    assert figures["Host memory"] == f"{framed.host_bytes / 2**30:.1f} GiB"
    assert all(figure in page for figure in figures.values())
    assert all(
        figures[key] in plan.verdict for key in ("Host memory", "GPU memory") if key in figures
    )


def test_a_plan_for_cpus_has_no_word_about_gpus_in_its_options() -> None:
    plan, _ = page_of("gpt2-medium-full-cpu")
    assert "GPU memory" not in {name for name, _, _ in headline(plan)}
    assert not any("GPU" in each.cost or "PCIe" in each.cost for each in plan.memory.options)


def test_a_price_has_the_currency_of_the_spec() -> None:
    price = ["hardware.price_per_gpu_hour=2.5", "hardware.currency=JPY"]
    plan = plan_example(load_spec(ROOT / "specs/plans/elyza-7b-full-8x80gb.yaml", price))
    assert ", about JPY " in headline(plan)[-1][2]
    assert ", for about JPY " in plan.verdict


def test_each_stage_divides_one_thing_more() -> None:
    plan, _ = page_of("elyza-7b-full-8x80gb")
    shares = {stage: [share for _, _, share in cells] for stage, cells in divided(plan)}
    assert shares == {
        "no ZeRO": ["whole", "whole", "whole"],
        "ZeRO-1": ["whole", "whole", "1/8"],
        "ZeRO-2": ["whole", "1/8", "1/8"],
        "ZeRO-3": ["1/8", "1/8", "1/8"],
    }


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium, which lays the page out")
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_of_the_page_is_wider_than_the_window(tmp_path: Path, width: int) -> None:
    browser = find_browser()
    assert browser is not None
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe style="width:{width}px;height:800px;border:0" '
        "onload=\"document.title='w'+this.contentDocument.documentElement.scrollWidth\" "
        f'srcdoc="{html.escape(page_of(EXAMPLES[1])[1])}"></iframe>'
    )
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={tmp_path}/profile", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<title>w(\d+)</title>", done.stdout)
    assert found is not None
    assert int(found[1]) <= width


@pytest.mark.parametrize(
    ("num_parameters", "shown"),
    [(6_738_415_616, "6.74B"), (134_515_008, "135M"), (158_016, "158,016 parameters")],
)
def test_a_models_size_is_never_zero_billions(num_parameters: int, shown: str) -> None:
    assert model_size(num_parameters) == shown
