"""Runs beside each other: the facts are the runs' own, and only what differs in their specs is
shown."""

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from components.shared.documents.results import Score
from components.shared.errors import SpecError
from components.shared.spec.run_spec import RunSpec
from components.write_report.compare import (
    cautions,
    check_page_file,
    compare_page,
    compared,
    write_page,
)
from components.write_report.gather import RunFound
from pipelines.screens.run import compare_screen
from tests.unit.write_report.example_run import find_example_run


@pytest.fixture
def first(tmp_path: Path) -> RunFound:
    return find_example_run(tmp_path / "store")


def other(run: RunFound, name: str, *, loss: float, **training: float) -> RunFound:
    spec = run.spec.model_copy(
        update={"name": name, "training": run.spec.training.model_copy(update=training)}
    )
    assert run.evaluation.tuned is not None
    tuned = run.evaluation.tuned.model_copy(update={"loss": loss})
    evaluation = run.evaluation.model_copy(update={"tuned": tuned})
    return RunFound(
        **{
            **vars(run),
            "spec": RunSpec.model_validate(spec),
            "evaluation": evaluation,
            "uri": f"s3://hagane/runs/{name}",
        }
    )


def test_only_fields_that_differ_are_shown(first: RunFound) -> None:
    table = compared([first, other(first, "slow", loss=1.5, lr_peak=1e-4)])
    assert [each.asked for each in table] == [
        {"training.lr_peak": 2e-3},
        {"training.lr_peak": 1e-4},
    ]
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


def test_every_other_metric_has_a_row_where_any_run_has_it(first: RunFound) -> None:
    assert first.evaluation.tuned is not None
    scores = {**first.evaluation.tuned.scores, "json": Score(value=0.5), "quiz/acc": Score(value=1)}
    tuned = first.evaluation.tuned.model_copy(update={"scores": scores})
    measured = first.evaluation.model_copy(update={"tuned": tuned})
    runs = [first, RunFound(**{**vars(first), "evaluation": measured})]
    table = compared(runs)
    assert [each.facts["scores"] for each in table] == [{}, {"json": 0.5, "quiz/acc": 1}]
    page = compare_page(runs, table)
    assert '<th scope="row">quiz/acc</th><td></td><td>1.000</td>' in page
    assert '<th scope="row">valid JSON</th><td></td><td>50.0 %</td>' in page
    shown = {"runs": [{"run": each.label, "asked": {}, **each.facts} for each in table]}
    console = Console(width=100, record=True, file=StringIO())
    console.print(compare_screen({**shown, "cautions": []}))
    assert re.search(r"^quiz/acc +1\.000 *$", console.export_text(), re.MULTILINE)


def test_what_a_model_writes_stays_text(first: RunFound) -> None:
    answers = tuple(
        each.model_copy(update={"tuned": "<script>alert(1)</script>"})
        for each in first.evaluation.answers
    )
    evaluation = first.evaluation.model_copy(update={"answers": answers})
    runs = [RunFound(**{**vars(first), "evaluation": evaluation}), other(first, "slow", loss=1.5)]
    assert "<script>" not in compare_page(runs, compared(runs))


def with_data(run: RunFound, inputs: dict[str, str], **data: object) -> RunFound:
    spec = run.spec.model_copy(update={"data": run.spec.data.model_copy(update=data)})
    return RunFound(
        **{**vars(run), "spec": spec, "dataset": run.dataset.model_copy(update={"inputs": inputs})}
    )


@pytest.mark.parametrize(
    ("inputs", "data", "caution"),
    [
        ({"spec": "other", "train": "a", "held_out": "b"}, {"row_tokens": 2048}, None),
        ({"train": "c", "held_out": "b"}, {}, "have different held-out data"),
        ({"train": "a", "held_out": "d"}, {}, "have different held-out data"),
        (
            {"train": "a", "held_out": "b"},
            {"held_out_by": "conversation"},
            "have different held-out data",
        ),
    ],
    ids=[
        "other settings",
        "other training data, of which a share is held out",
        "another share",
        "another choice",
    ],
)
def test_runs_of_other_data_are_cautioned_against(
    first: RunFound, inputs: dict[str, str], data: dict[str, object], caution: str | None
) -> None:
    run = with_data(first, {"train": "a", "held_out": "b"}, held_out=None)
    found = cautions(compared([run, with_data(first, inputs, held_out=None, **data)]))
    assert len(found) == (0 if caution is None else 1)
    assert caution is None or caution in found[0]


def test_other_training_data_with_the_same_held_out_data_is_reported_as_that(
    first: RunFound,
) -> None:
    runs = [
        with_data(first, {"train": train, "held_out": "b"}, held_out="held_out.jsonl")
        for train in "ac"
    ]
    assert cautions(compared(runs)) == [
        "The runs were trained on different data; their held-out data is the same."
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_runs_without_held_out_data_are_shown_as_not_measured(first: RunFound, count: int) -> None:
    evaluation = first.evaluation.model_copy(
        update={"base": None, "tuned": None, "comparisons": ()}
    )
    epochs = tuple(each.model_copy(update={"held_out_loss": None}) for each in first.history.epochs)
    history = first.history.model_copy(update={"epochs": epochs})
    without = RunFound(**{**vars(first), "evaluation": evaluation, "history": history})
    runs = [first, without] if count == 1 else [without, without]
    page = compare_page(runs, compared(runs))
    assert page.count("not measured") == 2 * count
    assert ("none with held-out data" in page) == (count == 2)


def test_a_page_that_cannot_be_written_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"--html: got .*none/page.html, but there is no folder .*none; make it"
    ):
        check_page_file(tmp_path / "none/page.html")
    with pytest.raises(SpecError, match=r"--html: .* cannot be written: Is a directory"):
        write_page(tmp_path, "page")
    check_page_file(tmp_path / "page.html")
    check_page_file(None)


@pytest.mark.parametrize("count", [1, 9])
def test_two_to_eight_runs_are_compared(first: RunFound, count: int) -> None:
    with pytest.raises(SpecError, match=f"compare: got {count} runs, must be 2 to 8"):
        compared([first] * count)
