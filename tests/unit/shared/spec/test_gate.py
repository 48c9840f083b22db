"""`gate` in a spec: what is taken, and one clear line for what is not."""

from typing import Any

import pytest

from components.shared.errors import SpecError
from components.shared.spec.file import parse_spec, spec_from_parameter, spec_yaml, stored_spec
from components.shared.spec.run_spec import RunSpec

PLAIN: dict[str, Any] = {
    "name": "demo",
    "store": "s",
    "model": {"source": "m"},
    "data": {"train": "t.jsonl"},
}


def spec(**settings: Any) -> RunSpec:
    return parse_spec({**PLAIN, **settings})


def refused(**settings: Any) -> str:
    with pytest.raises(SpecError) as error:
        spec_from_parameter({**PLAIN, **settings})
    (line,) = error.value.problems
    return line


def test_by_default_the_held_out_loss_must_fall_by_more_than_noise() -> None:
    (rule,) = spec().gate_rules
    assert (rule.metric, rule.against, rule.improve_by) == ("loss", "base", "noise")


def test_an_empty_gate_asks_for_nothing() -> None:
    assert spec(gate=[]).gate_rules == ()


def test_rules_come_back_from_a_runs_own_spec() -> None:
    rules = [
        {"metric": "loss", "against": "published", "improve_by": 0.5},
        {"metric": "json", "at_least": 0.9},
    ]
    before = spec(gate=rules, publish={"name": "support"})
    assert stored_spec(spec_yaml(before).encode(), "spec.yaml") == before


def test_metrics_of_rules_are_measured_too_and_each_once() -> None:
    rules = [{"metric": "json", "at_least": 0.9}, {"metric": "loss"}, {"metric": "rouge_l"}]
    assert spec(gate=rules, evaluation={"metrics": ["json"]}).metrics_on_answers == (
        "json",
        "rouge_l",
    )


def test_rules_may_be_about_metrics_of_benchmarks() -> None:
    rules = [
        {"metric": "arc_easy/acc", "improve_by": 0.02},
        {"metric": "gsm8k/exact_match/strict-match", "at_least": 0.4},
    ]
    tasks = {"tasks": ["arc_easy", "gsm8k"], "limit": 100}
    before = spec(gate=rules, evaluation={"lm_eval": tasks})
    assert [rule.task for rule in before.gate_rules] == ["arc_easy", "gsm8k"]
    assert before.metrics_on_answers == ()
    assert stored_spec(spec_yaml(before).encode(), "spec.yaml") == before


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"gate": "strict"},
            "gate: got 'strict', must be auto or a list of rules such as {metric: loss",
        ),
        (
            {"gate": [{"metric": "los"}]},
            "gate: rule 1: metric: got 'los', must be loss, perplexity, token_accuracy, "
            "exact_match, rouge_l, json, pattern, or TASK/METRIC of a task in "
            "evaluation.lm_eval.tasks, such as arc_easy/acc; a rule is such as",
        ),
        ({"gate": [{}]}, "gate: rule 1: metric: got {}: Field required"),
        (
            {"gate": [{"metric": "loss"}, {"metric": "loss", "improve_by": -1}]},
            "gate: rule 2: improve_by: got -1, must be noise or a number",
        ),
        (
            {"gate": [{"metric": "loss", "improve": 1}]},
            "gate: rule 1: improve: got 1: Extra inputs are not permitted",
        ),
        (
            {"gate": [{"metric": "json", "at_least": 0.9, "improve_by": 0.1}]},
            "at_least and at_most are about the tuned model alone",
        ),
        (
            {"gate": [{"metric": "json", "at_least": 0.9, "at_most": 0.1}]},
            "at_least 0.9 is above at_most 0.1",
        ),
        (
            {"gate": [{"metric": "loss", "against": "published"}]},
            "a rule of gate is against 'published', but publish.name is not set",
        ),
        (
            {"gate": [{"metric": "arc_easy/acc"}]},
            "a rule of gate is about the task 'arc_easy', which is not in evaluation.lm_eval.tasks",
        ),
        (
            {"gate": [{"metric": "arc_easy/"}]},
            "gate: rule 1: metric: got 'arc_easy/', must be loss,",
        ),
        (
            {
                "evaluation": {"lm_eval": {"tasks": ["arc_easy"]}},
                "data": {"train": "t.jsonl", "held_out_share": 0},
                "gate": [],
            },
            "evaluation.lm_eval.tasks are measured together with the held-out loss, but "
            "data.held_out_share is 0",
        ),
        (
            {"evaluation": {"lm_eval": {"tasks": ["arc_*"]}}},
            "got 'arc_*', must be the name of one task",
        ),
        (
            {"gate": [{"metric": "pattern"}]},
            "the metric 'pattern' needs evaluation.pattern, a regular expression; set it",
        ),
        (
            {"evaluation": {"pattern": "(a"}},
            "evaluation.pattern: got '(a', which is no regular expression: missing )",
        ),
        (
            {"publish": {"name": "Support"}},
            "publish.name: got 'Support', must be 1 to 50 small letters",
        ),
        (
            {"name": "published"},
            "name 'published' is the folder of published models in the store; set another name",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(settings: dict[str, Any], line: str) -> None:
    assert line in refused(**settings)
