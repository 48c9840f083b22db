"""An evaluation -> rows of a table: each metric of base and tuned model, and how much better it
became."""

from dataclasses import dataclass

from components.shared.documents.results import Comparison, Evaluation, Score

NAMES = {
    "loss": "loss, nats per token",
    "perplexity": "perplexity",
    "token_accuracy": "token accuracy",
    "exact_match": "exact match",
    "rouge_l": "ROUGE-L",
    "json": "valid JSON",
    "pattern": "evaluation.pattern",
}
_SHARES = ("token_accuracy", "exact_match", "rouge_l", "json", "pattern")


@dataclass(frozen=True)
class Figure:
    value: str
    half: str = ""
    """Of its interval, such as `± 0.04`."""


@dataclass(frozen=True)
class MetricRow:
    name: str
    base: Figure
    tuned: Figure
    better_by: str
    """With its interval; empty where it is not known."""


def metric_rows(evaluation: Evaluation) -> list[MetricRow]:
    """None where nothing is held out, and for an evaluation of hagane 0.1.0 or before."""
    if evaluation.both is None:
        return []
    base, tuned = evaluation.both
    compared = {each.metric: each for each in evaluation.comparisons if each.against == "base"}
    return [
        MetricRow(
            name=NAMES.get(metric, metric),
            base=_figure(metric, base.scores[metric]) if metric in base.scores else Figure(""),
            tuned=_figure(metric, score),
            better_by=_improvement(metric, compared[metric]) if metric in compared else "",
        )
        for metric, score in tuned.scores.items()
    ]


def _figure(metric: str, score: Score) -> Figure:
    """Perplexity's interval is not the same on both sides, and the loss has one."""
    if score.high is None or metric == "perplexity":
        half = ""
    else:
        half = f"± {metric_value(score.high - score.value, metric)}"
    return Figure(metric_value(score.value, metric), half)


def _improvement(metric: str, compared: Comparison) -> str:
    found = compared.improvement
    if found.low is None or found.high is None:
        between = ""
    else:
        between = f" ({metric_value(found.low, metric)} to {metric_value(found.high, metric)})"
    return f"{metric_value(found.value, metric)}{between}"


def metric_value(value: float, metric: str) -> str:
    """A metric's value, such as `79.4 %`."""
    if metric in _SHARES:
        return f"{100 * value:.1f} %"
    if abs(value) >= 100:
        return f"{value:.1f}"
    return f"{value:.3f}"
