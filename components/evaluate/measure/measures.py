"""What each conversation gave -> a model's measures, and the tuned model's improvement over
another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from components.evaluate.measure.held_out import Counted, perplexity
from components.evaluate.measure.interval import mean_score
from components.evaluate.measure.tasks import TaskValue
from components.shared.documents.results import Comparison, Measure, Score
from components.shared.spec.gate import LOWER_IS_BETTER, MeasuredOnAnswers, Metric, is_on_answers


@dataclass(frozen=True)
class Found:
    """What one model showed, conversation by conversation."""

    counted: list[Counted]
    answers: tuple[str, ...] = ()
    """To the spec's questions."""
    on_answers: Mapping[MeasuredOnAnswers, list[float]] | None = None
    """Of each held-out conversation that was answered."""
    tasks: Mapping[str, TaskValue] = field(default_factory=dict)
    """TASK/METRIC of lm-evaluation-harness -> value."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return ("loss", "perplexity", "token_accuracy", *(self.on_answers or {}), *self.tasks)

    def is_lower_better(self, metric: Metric) -> bool:
        if metric in self.tasks:
            return not self.tasks[metric].higher_is_better
        return metric in LOWER_IS_BETTER


def measure_of(found: Found) -> Measure:
    """Means over all trained tokens, each token weighing the same, and over all answers."""
    loss = score(found, "loss")
    scores = {metric: score(found, metric) for metric in found.metrics}
    num_tokens = sum(each.num_tokens for each in found.counted)
    return Measure(
        loss=loss.value,
        perplexity=perplexity(loss.value),
        num_tokens=num_tokens,
        scores=finite_scores(scores),
    )


def finite_scores(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Without those that JSON cannot hold."""
    return {
        name: each
        for name, each in scores.items()
        if all(math.isfinite(x) for x in (each.value, each.low or 0, each.high or 0))
    }


def score(found: Found, metric: Metric) -> Score:
    """The metric's value and its interval."""
    if metric == "perplexity":
        loss = score(found, "loss")
        ends = [None if end is None else perplexity(end) for end in (loss.low, loss.high)]
        return Score(value=perplexity(loss.value), low=ends[0], high=ends[1])
    if _has_no_sums(found, metric):
        return Score(value=found.tasks[metric].value)
    return mean_score(*_sums(found, metric))


def comparison(tuned: Found, other: Found, metric: Metric, *, against: str) -> Comparison:
    """Both models measured on the same conversations."""
    before, after = score(other, metric).value, score(tuned, metric).value
    return Comparison.model_validate(
        {
            "metric": metric,
            "against": against,
            "other": before,
            "tuned": after,
            "improvement": _improvement(tuned, other, metric),
        }
    )


def _improvement(tuned: Found, other: Found, metric: Metric) -> Score:
    """Of differences within conversations: what makes one harder than another is in both, and so in
    neither's favour.

    Perplexity's is without an interval: the loss, of which it is a function, has one.
    """
    if metric == "perplexity":
        return Score(value=score(other, metric).value - score(tuned, metric).value)
    if tuned.is_lower_better(metric):
        sign = -1
    else:
        sign = 1
    if _has_no_sums(tuned, metric) or _has_no_sums(other, metric):
        return Score(value=sign * (score(tuned, metric).value - score(other, metric).value))
    sums, weights = _sums(tuned, metric)
    other_sums, _ = _sums(other, metric)
    return mean_score(
        [sign * (new - old) for new, old in zip(sums, other_sums, strict=True)], weights
    )


def _has_no_sums(found: Found, metric: Metric) -> bool:
    """A task's value that is no mean over documents, as that of a group."""
    return metric in found.tasks and not found.tasks[metric].by_document


def _sums(found: Found, metric: Metric) -> tuple[Sequence[float], Sequence[float]]:
    """(sum, weight) of each conversation: tokens of it for loss and token accuracy, one for its
    answer; for a task, of each document."""
    if metric in found.tasks:
        values = found.tasks[metric].by_document
        return values, [1] * len(values)
    if metric == "loss":
        return [each.loss_sum for each in found.counted], [
            each.num_tokens for each in found.counted
        ]
    if metric == "token_accuracy":
        return [each.num_right for each in found.counted], [
            each.num_tokens for each in found.counted
        ]
    assert is_on_answers(metric)
    values = (found.on_answers or {})[metric]
    return values, [1] * len(values)
