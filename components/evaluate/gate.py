"""The spec's gate and what the models showed -> each rule, met or not, with its numbers."""

from collections.abc import Iterable

from components.evaluate.measure.measures import Found, comparison, score
from components.shared.documents.results import Comparison, GateResult, RuleResult, Score
from components.shared.spec.gate import GateRule

_NAMES = {
    "loss": "held-out loss",
    "token_accuracy": "token accuracy",
    "exact_match": "exact match",
    "rouge_l": "ROUGE-L",
    "json": "share of valid JSON",
    "pattern": "share with evaluation.pattern",
}
_NO_NOISE = "its noise is not known, so improve_by must be a number"


def judge(
    rules: Iterable[GateRule], *, tuned: Found, base: Found, published: Found | None
) -> GateResult:
    """`published` is None where nothing is published yet: a rule against it is then met."""
    return GateResult(
        rules=tuple(
            _judged(rule, tuned, base if rule.against == "base" else published) for rule in rules
        )
    )


def _judged(rule: GateRule, tuned: Found, other: Found | None) -> RuleResult:
    words = _words(rule, lower_is_better=tuned.is_lower_better(rule.metric))
    if rule.is_bound:
        value = score(tuned, rule.metric).value
        return RuleResult(rule=words, met=_is_within(rule, value), found=f"{value:.4g}")
    if other is None:
        return RuleResult(rule=words, met=True, found="nothing published yet to compare with")
    compared = comparison(tuned, other, rule.metric, against=rule.against)
    if rule.improve_by != "noise":
        found = _numbers(compared, compared.improvement)
        return RuleResult(
            rule=words, met=compared.improvement.value >= rule.improve_by, found=found
        )
    if rule.task is not None and compared.improvement.low is None:
        found = f"{_numbers(compared, compared.improvement)}; {_NO_NOISE}"
        return RuleResult(rule=words, met=False, found=found)
    if rule.metric == "perplexity":
        with_interval = comparison(tuned, other, "loss", against=rule.against)
    else:
        with_interval = compared
    noise = with_interval.improvement
    return RuleResult(rule=words, met=beyond_noise(noise), found=_numbers(compared, noise))


def beyond_noise(improvement: Score) -> bool:
    """One conversation has no noise that could be measured: then any improvement counts."""
    return (improvement.value if improvement.low is None else improvement.low) > 0


def _is_within(rule: GateRule, value: float) -> bool:
    return (rule.at_least is None or value >= rule.at_least) and (
        rule.at_most is None or value <= rule.at_most
    )


def _words(rule: GateRule, *, lower_is_better: bool) -> str:
    """Such as `held-out loss must fall below the base model's by more than noise`."""
    name = _NAMES.get(rule.metric, rule.metric)
    if rule.is_bound:
        bounds = (("at least", rule.at_least), ("at most", rule.at_most))
        return (
            f"{name} must be "
            f"{' and '.join(f'{word} {bound:g}' for word, bound in bounds if bound is not None)}"
        )
    if lower_is_better:
        moves = "fall below"
    else:
        moves = "rise above"
    if rule.against == "base":
        other = "the base model's"
    else:
        other = "that of the published version"
    if rule.improve_by == "noise":
        least = "more than noise"
    else:
        least = f"at least {rule.improve_by:g}"
    return f"{name} must {moves} {other} by {least}"


def _numbers(compared: Comparison, interval: Score) -> str:
    """Such as `4.0860 -> 0.7230; better by 3.363 (95 % interval 3.1 to 3.6)`."""
    moved = compared.improvement.value
    about = (
        f"{compared.other:.4f} -> {compared.tuned:.4f}; {'better' if moved > 0 else 'worse'} by "
        f"{abs(moved):.4g}"
    )
    if interval.low is None or interval.high is None:
        return about
    if interval is compared.improvement:
        of_loss = ""
    else:
        of_loss = " of the loss's improvement"
    return f"{about} (95 % interval{of_loss} {interval.low:.4g} to {interval.high:.4g})"
