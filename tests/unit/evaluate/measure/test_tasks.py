"""What lm_eval 0.4.13 returned for a tiny model -> values, and what is said where it cannot be
asked.

The package itself is asked by `make test-lm-eval`.
"""

from pathlib import Path
from typing import Any

import pytest

from components.evaluate.measure import tasks
from components.evaluate.measure.tasks import TaskValue, check_tasks, values_of
from components.shared.errors import SpecError
from components.shared.spec.results import LmEvalSpec


def sample(doc_id: int, kind: str = "none", **values: object) -> dict[str, Any]:
    return {"doc_id": doc_id, "filter": kind, "metrics": list(values), **values}


RETURNED: dict[str, Any] = {
    "results": {
        "quiz": {"name": "quiz", "alias": "quiz", "sample_len": 4, "acc,none": 0.75},
        "sums": {
            "alias": "sums",
            "exact_match,strict-match": 0.5,
            "exact_match_stderr,strict-match": "N/A",
            "exact_match,flexible-extract": 1.0,
        },
        "text": {"alias": "text", "word_perplexity,none": 12.5},
        "both": {"alias": "both", "acc,none": 0.6, "acc_stderr,none": float("nan")},
    },
    "higher_is_better": {
        "quiz": {"acc": True},
        "sums": {"exact_match": True},
        "text": {"word_perplexity": False},
        "both": {"acc": True},
    },
    "samples": {
        "quiz": [sample(number, acc=float(number != 2)) for number in (3, 1, 0, 2)],
        "sums": [
            sample(0, "strict-match", exact_match=1.0),
            sample(1, "strict-match", exact_match=0.0),
            sample(0, "flexible-extract", exact_match=1.0),
            sample(1, "flexible-extract", exact_match=1.0),
        ],
        "text": [sample(0, word_perplexity=(-20.0, 8)), sample(1, word_perplexity=(-5.0, 2))],
    },
}


def test_each_metric_of_each_task_has_the_values_of_its_documents_in_order() -> None:
    values = values_of(RETURNED)
    assert values["quiz/acc"] == TaskValue(0.75, (1, 1, 0, 1), higher_is_better=True)
    assert values["sums/exact_match/strict-match"].by_document == (1, 0)
    assert values["sums/exact_match/flexible-extract"].by_document == (1, 1)
    assert set(values) == {
        *("quiz/acc", "sums/exact_match/strict-match", "sums/exact_match/flexible-extract"),
        *("text/word_perplexity", "both/acc"),
    }


def test_a_value_that_is_no_mean_over_documents_has_no_interval() -> None:
    values = values_of(RETURNED)
    assert values["text/word_perplexity"] == TaskValue(12.5, (), higher_is_better=False)
    assert values["both/acc"].by_document == ()


def test_a_value_that_is_not_finite_is_left_out() -> None:
    returned = {**RETURNED, "results": {"quiz": {"acc,none": float("nan")}}}
    assert values_of(returned) == {}


def test_nothing_is_needed_where_no_task_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PACKAGE", "a_package_that_nobody_has")
    check_tasks(LmEvalSpec())


def test_a_package_that_is_not_installed_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(SpecError, match=r"^evaluation.lm_eval.tasks: .* Fix: pip install"):
        check_tasks(LmEvalSpec(tasks=("quiz",)))


def test_a_folder_of_tasks_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "PACKAGE", "json")  # installed everywhere
    with pytest.raises(SpecError, match=r"evaluation.lm_eval.folder: .*nowhere' is not a folder"):
        check_tasks(LmEvalSpec(tasks=("quiz",), folder=str(tmp_path / "nowhere")))
