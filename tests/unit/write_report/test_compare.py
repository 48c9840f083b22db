"""Runs beside each other: the facts are the runs' own, and only what differs in their specs is shown."""

from pathlib import Path

import pytest

from components.shared.errors import SpecError
from components.shared.spec import RunSpec
from components.write_report.compare import cautions, compare_page, compared
from components.write_report.gather import RunFound
from tests.unit.write_report.example_run import find_example_run


@pytest.fixture
def first(tmp_path: Path) -> RunFound:
    return find_example_run(tmp_path / "store")


def other(run: RunFound, name: str, *, loss: float, **training: float) -> RunFound:
    spec = run.spec.model_copy(update={"name": name, "training": run.spec.training.model_copy(update=training)})
    assert run.evaluation.tuned is not None
    tuned = run.evaluation.tuned.model_copy(update={"loss": loss})
    evaluation = run.evaluation.model_copy(update={"tuned": tuned})
    return RunFound(**{**vars(run), "spec": RunSpec.model_validate(spec), "evaluation": evaluation, "uri": f"s3://hagane/runs/{name}"})


def test_only_fields_that_differ_are_shown(first: RunFound) -> None:
    table = compared([first, other(first, "slow", loss=1.5, lr_peak=1e-4)])
    assert [each.asked for each in table] == [{"training.lr_peak": 2e-3}, {"training.lr_peak": 1e-4}]
    assert [each.facts["tuned_loss"] for each in table] == [0.9778, 1.5]
    assert table[0].facts["restarts"] == 1
    assert 300 < table[0].facts["tokens_per_second"] < 450


def test_the_page_names_the_best_run_and_needs_nothing_beside_it(first: RunFound) -> None:
    runs = [other(first, "slow", loss=1.5, lr_peak=1e-4), first]
    page = compare_page(runs, compared(runs))
    assert "demo has the lowest held-out loss of 2 runs" in page
    assert page.count("<polyline") == 4
    assert "src=" not in page
    assert "href=" not in page
    assert "training.lr_peak" in page


def test_what_a_model_writes_stays_text(first: RunFound) -> None:
    answers = tuple(each.model_copy(update={"tuned": "<script>alert(1)</script>"}) for each in first.evaluation.answers)
    evaluation = first.evaluation.model_copy(update={"answers": answers})
    runs = [RunFound(**{**vars(first), "evaluation": evaluation}), other(first, "slow", loss=1.5)]
    assert "<script>" not in compare_page(runs, compared(runs))


def test_runs_of_other_data_or_another_base_are_cautioned_against(first: RunFound) -> None:
    moved = RunFound(**{**vars(first), "dataset": first.dataset.model_copy(update={"inputs": {"data": "other"}})})
    assert cautions(compared([first, moved])) == [
        "The runs have different data, so their held-out losses may be of different conversations."
    ]
    assert cautions(compared([first, first])) == []


@pytest.mark.parametrize("count", [1, 9])
def test_two_to_eight_runs_are_compared(first: RunFound, count: int) -> None:
    with pytest.raises(SpecError, match=f"compare: got {count} runs, must be 2 to 8"):
        compared([first] * count)
