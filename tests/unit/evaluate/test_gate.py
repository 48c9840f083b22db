"""Rules of a gate, each met and missed, with numbers made by hand."""

from dataclasses import replace
from typing import Any, cast

import pytest

from components.evaluate.gate import judge
from components.evaluate.measure.held_out import Counted
from components.evaluate.measure.measures import Found, comparison, measure_of
from components.evaluate.measure.tasks import TaskValue
from components.shared.spec.gate import GateRule


def found(*losses: float, right: tuple[int, ...] = (), **on_answers: Any) -> Found:
    """Ten tokens a conversation."""
    hits = right or (5,) * len(losses)
    counted = [Counted(10 * loss, hit, 10) for loss, hit in zip(losses, hits, strict=True)]
    return Found(counted, on_answers=cast(Any, on_answers))


BASE = found(4.0, 4.4, 3.8, 4.2, right=(2, 3, 2, 3), json=[0, 0, 1, 0])
BETTER = found(3.0, 3.3, 2.9, 3.1, right=(5, 6, 5, 5), json=[1, 1, 1, 0])
NOISE = found(3.6, 4.7, 3.5, 4.4)
"""Lower on the whole, but higher for two of four conversations."""


def line(
    rule: dict[str, Any], tuned: Found, *, base: Found = BASE, published: Found | None = None
) -> tuple[bool, str]:
    (result,) = judge([GateRule(**rule)], tuned=tuned, base=base, published=published).rules
    return result.met, f"{result.rule}: {result.found}"


def test_an_improvement_of_every_conversation_is_more_than_noise() -> None:
    met, reported = line({"metric": "loss"}, BETTER)
    assert met
    assert reported == (
        "held-out loss must fall below the base model's by more than noise: 4.1000 -> 3.0750; "
        "better by 1.025 (95 % interval 0.8727 to 1.177)"
    )


def test_a_lower_loss_within_noise_does_not_pass() -> None:
    met, reported = line({"metric": "loss"}, NOISE)
    assert not met
    assert "better by 0.05 (95 % interval -0.5" in reported


def test_differences_are_taken_within_conversations() -> None:
    """Conversations differ far more from each other than the models do, which no interval of one
    model alone would see through."""
    base, tuned = found(1.0, 9.0, 3.0, 6.0), found(0.9, 8.85, 2.9, 5.88)
    assert line({"metric": "loss"}, tuned, base=base)[0]
    loss = measure_of(tuned).scores["loss"]
    assert loss.low is not None
    assert loss.low < 1.0


def test_a_worse_model_is_reported_as_worse() -> None:
    assert line({"metric": "loss"}, BASE, base=BETTER) == (
        False,
        line({"metric": "loss"}, BASE, base=BETTER)[1],
    )
    assert "worse by 1.025" in line({"metric": "loss"}, BASE, base=BETTER)[1]


@pytest.mark.parametrize(("least", "met"), [(1.0, True), (1.1, False)])
def test_least_improvement_is_of_the_mean(least: float, met: bool) -> None:
    assert line({"metric": "loss", "improve_by": least}, BETTER)[0] is met


@pytest.mark.parametrize(
    ("rule", "met", "reported"),
    [
        (
            {"metric": "token_accuracy", "improve_by": 0.2},
            True,
            "token accuracy must rise above the base model's by at least 0.2",
        ),
        (
            {"metric": "json", "at_least": 0.9},
            False,
            "share of valid JSON must be at least 0.9: 0.75",
        ),
        (
            {"metric": "json", "at_least": 0.7, "at_most": 0.8},
            True,
            "share of valid JSON must be at least 0.7 and at most 0.8: 0.75",
        ),
        ({"metric": "loss", "at_most": 3.0}, False, "held-out loss must be at most 3: 3.075"),
        (
            {"metric": "perplexity"},
            True,
            "(95 % interval of the loss's improvement 0.8727 to 1.177)",
        ),
        ({"metric": "perplexity", "improve_by": 50}, False, "60.3403 -> 21.6499; better by 38.69"),
    ],
)
def test_each_kind_of_rule(rule: dict[str, Any], met: bool, reported: str) -> None:
    found, text = line(rule, BETTER)
    assert found is met
    assert reported in text


def test_a_rule_against_the_published_version_compares_with_that_one() -> None:
    rule = {"metric": "loss", "against": "published"}
    assert line(rule, BETTER, published=NOISE)[0]
    assert not line(rule, NOISE, published=BETTER)[0]
    assert line(rule, NOISE, published=None) == (
        True,
        (
            "held-out loss must fall below that of the published version by more than noise: "
            "nothing published yet to compare with"
        ),
    )


def test_one_conversation_has_no_noise_to_compare_with() -> None:
    assert line({"metric": "loss"}, found(3.9), base=found(4.0))[0]
    assert not line({"metric": "loss"}, found(4.0), base=found(4.0))[0]


def test_measures_name_every_metric_with_its_interval() -> None:
    scores = measure_of(BETTER).scores
    assert set(scores) == {"loss", "perplexity", "token_accuracy", "json"}
    assert scores["token_accuracy"].value == pytest.approx(0.525)
    assert scores["json"].low is not None
    assert comparison(
        BETTER, BASE, "token_accuracy", against="base"
    ).improvement.value == pytest.approx(0.275)


def with_task(value: float, *by_document: float, higher: bool = True) -> Found:
    task = TaskValue(value, by_document, higher_is_better=higher)
    return replace(found(4.0, 4.4), tasks={"quiz/acc": task})


def test_a_benchmark_is_compared_document_by_document() -> None:
    base, tuned = with_task(0.5, 1, 0, 1, 0), with_task(1.0, 1, 1, 1, 1)
    met, reported = line({"metric": "quiz/acc"}, tuned, base=base)
    assert not met  # two of four documents: within noise
    assert reported.startswith(
        "quiz/acc must rise above the base model's by more than noise: 0.5000 -> 1.0000; better "
        "by 0.5 (95 % interval "
    )
    base, tuned = with_task(0.0, 0, 0, 0, 0), with_task(1.0, 1, 1, 1, 1)
    assert line({"metric": "quiz/acc"}, tuned, base=base)[0]


def test_a_benchmark_in_which_less_is_better_must_fall() -> None:
    base, tuned = with_task(12.0, higher=False), with_task(10.0, higher=False)
    met, reported = line({"metric": "quiz/acc", "improve_by": 1}, tuned, base=base)
    assert met
    assert "must fall below" in reported
    assert not line({"metric": "quiz/acc", "improve_by": 1}, base, base=tuned)[0]


def test_a_benchmark_without_an_interval_is_never_better_than_noise() -> None:
    met, reported = line({"metric": "quiz/acc"}, with_task(0.9), base=with_task(0.1))
    assert not met
    assert reported.endswith("its noise is not known, so improve_by must be a number")


def test_bounds_of_a_benchmark_are_of_the_tuned_model() -> None:
    assert line({"metric": "quiz/acc", "at_least": 0.8}, with_task(0.9), base=with_task(0.1))[0]


def test_a_benchmark_is_among_the_scores() -> None:
    score = measure_of(with_task(0.75, 1, 1, 0, 1)).scores["quiz/acc"]
    assert score.value == 0.75
    assert score.low is not None
