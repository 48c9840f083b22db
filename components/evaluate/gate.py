"""The spec's gate and what the models showed -> each rule, met or not, with its numbers."""

from collections.abc import Iterable

from components.evaluate.measure.measures import Found, comparison, score
from components.shared.documents.results import Comparison, GateResult, RuleResult, Score
from components.shared.spec.gate import LOWER_IS_BETTER, GateRule

_NAMES = {
    "loss": "held-out loss",
    "token_accuracy": "token accuracy",
    "exact_match": "exact match",
    "rouge_l": "ROUGE-L",
    "json": "share of valid JSON",
    "pattern": "share with evaluation.pattern",
}


def judge(rules: Iterable[GateRule], *, tuned: Found, base: Found, published: Found | None) -> GateResult:
    """`published` is None where nothing is published yet: a rule against it is then met."""
    return GateResult(rules=tuple(_judged(rule, tuned, base if rule.against == "base" else published) for rule in rules))


def _judged(rule: GateRule, tuned: Found, other: Found | None) -> RuleResult:
    if rule.is_bound:
        return _within(rule, score(tuned, rule.metric).value)
    if other is None:
        return RuleResult(rule=_words(rule), met=True, found="nothing published yet to compare with")
    compared = comparison(tuned, other, rule.metric, against=rule.against)
    if rule.improve_by != "noise":
        found = _numbers(compared, compared.improvement)
        return RuleResult(rule=_words(rule), met=compared.improvement.value >= rule.improve_by, found=found)
    with_interval = comparison(tuned, other, "loss", against=rule.against) if rule.metric == "perplexity" else compared
    noise = with_interval.improvement
    return RuleResult(rule=_words(rule), met=beyond_noise(noise), found=_numbers(compared, noise))


def beyond_noise(improvement: Score) -> bool:
    """One conversation has no noise that could be measured: then any improvement counts."""
    return (improvement.value if improvement.low is None else improvement.low) > 0


def _within(rule: GateRule, value: float) -> RuleResult:
    met = (rule.at_least is None or value >= rule.at_least) and (rule.at_most is None or value <= rule.at_most)
    return RuleResult(rule=_words(rule), met=met, found=f"{value:.4g}")


def _words(rule: GateRule) -> str:
    """Such as `held-out loss must fall below the base model's by more than noise`."""
    name = _NAMES.get(rule.metric, rule.metric)
    if rule.is_bound:
        bounds = (("at least", rule.at_least), ("at most", rule.at_most))
        return f"{name} must be {' and '.join(f'{word} {bound:g}' for word, bound in bounds if bound is not None)}"
    moves = "fall below" if rule.metric in LOWER_IS_BETTER else "rise above"
    other = "the base model's" if rule.against == "base" else "that of the published version"
    least = "more than noise" if rule.improve_by == "noise" else f"at least {rule.improve_by:g}"
    return f"{name} must {moves} {other} by {least}"


def _numbers(compared: Comparison, interval: Score) -> str:
    """Such as `4.0860 -> 0.7230; better by 3.363 (95 % interval 3.1 to 3.6)`."""
    moved = compared.improvement.value
    about = f"{compared.other:.4f} -> {compared.tuned:.4f}; {'better' if moved > 0 else 'worse'} by {abs(moved):.4g}"
    if interval.low is None or interval.high is None:
        return about
    of_loss = "" if interval is compared.improvement else " of the loss's improvement"
    return f"{about} (95 % interval{of_loss} {interval.low:.4g} to {interval.high:.4g})"
