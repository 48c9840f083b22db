import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from components.write_report.gather import RunFound
from components.write_report.page import part_rows, plan_rows, proof_bars, render_page, verdict
from tests.regenerate_golden import GOLDEN
from tests.unit.write_report.example_run import VERIFICATION, find_example_run

UNCLOSED = {"meta", "br"}


@pytest.fixture
def found(tmp_path: Path) -> RunFound:
    return find_example_run(tmp_path / "store")


@pytest.fixture
def page(found: RunFound) -> str:
    return render_page(found)


class OpenTags(HTMLParser):
    """Keeps the elements that are open; closing another than the last one is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in UNCLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<line/>` of a drawing."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_equals_the_golden_one(page: str):
    assert page == (GOLDEN / "report.html").read_text(encoding="utf-8"), (
        "if this is meant: python -m tests.regenerate_golden"
    )


def test_page_needs_nothing_beside_it(page: str):
    assert (
        re.findall(r'(?:src|href)="([^"]*)"', page) == []
    )  # it is shown in frames that have no folder around them
    assert not re.search(r"<script|<link|<img|@import|url\(|https?://", page)


def test_every_element_of_the_page_is_closed(page: str):
    parser = OpenTags()
    parser.feed(page)
    assert parser.open == []


def test_what_a_model_writes_cannot_become_part_of_the_page(found: RunFound):
    answer = found.evaluation.answers[0].model_copy(
        update={"tuned": "</div><script>alert(1)</script>"}
    )
    page = render_page(
        replace(found, evaluation=found.evaluation.model_copy(update={"answers": (answer,)}))
    )
    assert "<script" not in page
    assert "&lt;/div&gt;&lt;script&gt;" in page


def test_page_tells_every_folder_file_and_checksum(found: RunFound, page: str):
    for folder in found.folders:
        assert f"<code>{folder.folder}/</code>" in page
        for file in folder.files:
            assert file.name in page
            assert file.sha256 in page


def test_verdict_says_what_was_tuned_on_what_and_for_how_long(found: RunFound):
    assert verdict(found) == (
        "smollm2-135m-instruct learned from 362 conversations by LoRA, 3 epochs in 8 min 20 s; its "
        "loss on held-out conversations fell:"
    )


def test_a_model_that_did_not_improve_is_not_praised(found: RunFound):
    worse = found.evaluation.model_copy(update={"improved": False, "tuned": found.evaluation.base})
    page = render_page(replace(found, evaluation=worse))
    assert '<h1 class="not">' in page
    assert "held-out conversations did not fall: <span>4.767 → 4.767</span>" in page


def test_full_training_has_no_rows_about_lora(found: RunFound):
    full = found.plan.model_copy(update={"method": "full", "lora": None, "reasons": {}})
    assert not [row for row in plan_rows(full) if "LoRA" in row.name]
    assert "by full training" in verdict(replace(found, plan=full))


def test_a_reason_that_this_page_does_not_know_is_shown_all_the_same(found: RunFound):
    plan = found.plan.model_copy(update={"reasons": {"model.model_type": "as config.json says"}})
    assert [(row.name, row.value) for row in plan_rows(plan) if row.reason] == [
        ("model.model_type", "llama")
    ]


def test_the_time_of_each_part_stands_with_its_share(page: str):
    assert "<td>backward pass</td>" in page
    assert '<td class="number">4 min 1 s</td><td class="number">51 %</td>' in page
    assert "<td>first optimizer step</td>" in page
    assert '<td class="number">5.4 s</td><td class="number">33 %</td>' in page


def test_a_part_without_time_is_shown_and_no_parts_are_no_table():
    assert part_rows({"forward": 2.0, "data": 0.0}) == [
        ("forward pass", "2 s", "100 %"),
        ("reading rows", "0 s", "0 %"),
    ]
    assert part_rows({}) == []


def test_bars_of_the_proof_grow_with_the_difference():
    export, allowed, base = proof_bars(VERIFICATION)
    assert 0 < export.percent < allowed.percent < base.percent == 80
    assert (export.value, allowed.value, base.value) == ("2.4e-06", "0.0001", "3.6")


def test_an_export_without_any_difference_gets_no_bar():
    same = VERIFICATION.exported.model_copy(update={"max": 0.0})
    assert proof_bars(VERIFICATION.model_copy(update={"exported": same}))[0].percent == 0
