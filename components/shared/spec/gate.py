"""`gate` of the spec: the rules that a tuned model must meet before it is published."""

import re
from typing import Annotated, Any, Literal, Self, TypeGuard

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from components.shared.documents.fields import FrozenModel, Number
from components.shared.printable import shown

MeasuredOnAnswers = Literal["exact_match", "rouge_l", "json", "pattern"]
"""Shares from 0 to 1 of the answers that a model generates."""
Metric = str
"""One of METRICS, or TASK/METRIC of a task in `evaluation.lm_eval.tasks`."""
METRICS = ("loss", "perplexity", "token_accuracy", "exact_match", "rouge_l", "json", "pattern")
ON_ANSWERS: tuple[MeasuredOnAnswers, ...] = ("exact_match", "rouge_l", "json", "pattern")
LOWER_IS_BETTER = ("loss", "perplexity")
_OF_TASK = re.compile(r"[^\s/*]+(/[^\s/*]+){1,2}")
_EXAMPLE = "{metric: loss, against: base, improve_by: 0.1}"


def _noise_or_number(value: object) -> object:
    if value == "noise" or (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e9
    ):
        return value
    raise ValueError(f"got {shown(value)}, must be noise or a number that is not negative")


def _known_metric(value: object) -> object:
    if isinstance(value, str) and (value in METRICS or _OF_TASK.fullmatch(value)):
        return value
    raise ValueError(
        f"got {shown(value)}, must be {', '.join(METRICS)}, or TASK/METRIC of a task in "
        "evaluation.lm_eval.tasks, such as arc_easy/acc"
    )


class GateRule(FrozenModel):
    """Either an improvement over another model, or bounds of the tuned model's own value."""

    metric: Annotated[Metric, BeforeValidator(_known_metric)]
    against: Literal["base", "published"] = "base"
    """The model before training, or the version that is published now; where nothing is published
    yet, the rule is met."""
    improve_by: Annotated[Literal["noise"] | float, BeforeValidator(_noise_or_number)] = "noise"
    """Least improvement: lower for loss and perplexity, higher for hagane's other metrics, and for
    metrics of lm-evaluation-harness as their task says. `noise`: the 95 % confidence interval of
    the improvement, over conversations or documents, lies above 0."""
    at_least: Number | None = Field(default=None, ge=-1e9, le=1e9)
    at_most: Number | None = Field(default=None, ge=-1e9, le=1e9)

    @property
    def task(self) -> str | None:
        """Task of lm-evaluation-harness whose metric it is; None for hagane's own metrics."""
        task, slash, _ = self.metric.partition("/")
        if slash:
            return task
        return None

    @property
    def is_bound(self) -> bool:
        return self.at_least is not None or self.at_most is not None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = self.model_fields_set & {"against", "improve_by"}
        if self.is_bound and (self.against != "base" or self.improve_by != "noise"):
            raise ValueError(
                "at_least and at_most are about the tuned model alone; leave out "
                f"{', '.join(sorted(given))}"
            )
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} is above at_most {self.at_most:g}")
        return self


def is_on_answers(metric: Metric) -> TypeGuard[MeasuredOnAnswers]:
    return metric in ON_ANSWERS


def auto_or_rules(value: object) -> object:
    """`auto`, or the rules of a list."""
    if value == "auto":
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"got {shown(value)}, must be auto or a list of rules such as {_EXAMPLE}")
    return tuple(_rule(item, number) for number, item in enumerate(value, start=1))


def _rule(value: Any, number: int) -> GateRule:
    try:
        return GateRule.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        said = first["msg"].removeprefix("Value error, ")
        if where and not said.startswith("got "):
            said = f"got {shown(first['input'], name=where)}: {said}"
        if where:
            place = f"rule {number}: {where}"
        else:
            place = f"rule {number}"
        raise ValueError(f"{place}: {said}; a rule is such as {_EXAMPLE}") from None


def checked_pattern(value: object) -> object:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(
                f"got {shown(value)}, which is no regular expression: {error}"
            ) from None
    return value
