"""Tasks of lm-evaluation-harness (the package `lm_eval`) -> values of a model that is in memory.

hagane's images do not hold the package: docs/result.md says how to add it. Tried with 0.4.13. Its
own standard errors are left out: where a value is a mean over documents, the values of the
documents give the interval, and two models are compared document by document.
"""

import importlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from numbers import Real
from statistics import fmean
from typing import Any

from components.shared.errors import SpecError
from components.shared.machine import user_path
from components.shared.spec.results import LmEvalSpec

PACKAGE = "lm_eval"
REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")
"""Methods of lm_eval's models, which each draw a progress bar unless it is switched off."""


@dataclass(frozen=True)
class TaskValue:
    """One metric of one task, for one model."""

    value: float
    by_document: tuple[float, ...]
    """In the order of the documents; empty where `value` is not their mean."""
    higher_is_better: bool


def check_tasks(asked: LmEvalSpec) -> None:
    """All tasks are known to lm_eval, of which nothing is imported where no task is asked for.

    Raises:
        SpecError: lm_eval is not installed, the folder is not there, or tasks are unknown.
    """
    if not asked.tasks:
        return
    if find_spec(PACKAGE) is None:
        raise SpecError(
            f"evaluation.lm_eval.tasks: needs the Python package {PACKAGE}, which is not installed "
            f"where the step evaluate runs. Fix: pip install {PACKAGE}, or an image that has it "
            "(docs/result.md, Benchmarks)"
        )
    known = _manager(asked).all_tasks
    unknown = [task for task in asked.tasks if task not in known]
    if unknown:
        raise SpecError(*(_unknown(task, known) for task in unknown))


def _unknown(task: str, known: list[str]) -> str:
    near = ", ".join(get_close_matches(task, known, n=3))
    if near:
        similar = f"; similar names: {near}"
    else:
        similar = ""
    return (
        f"evaluation.lm_eval.tasks: {PACKAGE} has no task {task!r} among {len(known):,}{similar}. "
        "Fix: name one of `lm_eval ls tasks`, or set evaluation.lm_eval.folder; a run that is "
        "trained already stays so"
    )


def _manager(asked: LmEvalSpec) -> Any:
    if asked.folder is None:
        folder = None
    else:
        folder = user_path(asked.folder)
    if folder is not None and not folder.is_dir():
        raise SpecError(
            f"evaluation.lm_eval.folder: {asked.folder!r} is not a folder where the step evaluate "
            "runs. Fix: name one that is on this machine, in the image or on a claim"
        )
    return _library("tasks").TaskManager(include_path=None if folder is None else str(folder))


def _library(module: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.{module}")


def task_values(model: Any, tokenizer: Any, asked: LmEvalSpec) -> dict[str, TaskValue]:
    """TASK/METRIC -> value, of all tasks; TASK/METRIC/FILTER where a task filters the answers.

    One prompt at a time: a batch would need more memory than the plan counts.
    """
    if not asked.tasks:
        return {}
    harness = _library("models.huggingface").HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=1
    )
    for name in REQUESTS:
        setattr(harness, name, partial(getattr(harness, name), disable_tqdm=True))
    found = _library("evaluator").simple_evaluate(
        model=harness,
        tasks=list(asked.tasks),
        task_manager=_manager(asked),
        limit=asked.limit,
        apply_chat_template=asked.chat_template,
        bootstrap_iters=0,
        log_samples=True,
    )
    return values_of(found)


def values_of(found: Mapping[str, Any]) -> dict[str, TaskValue]:
    """What `simple_evaluate` returns -> TASK/METRIC -> value."""
    values: dict[str, TaskValue] = {}
    for task, results in found["results"].items():
        directions = found["higher_is_better"].get(task, {})
        documents = found["samples"].get(task, [])
        for key, value in results.items():
            metric, comma, kind = key.partition(",")
            if not comma or metric.endswith("_stderr") or not _is_number(value):
                continue
            if kind == "none":
                name = f"{task}/{metric}"
            else:
                name = f"{task}/{metric}/{kind}"
            of_kind = [each for each in documents if each["filter"] == kind]
            values[name] = TaskValue(
                float(value),
                _by_document(metric, of_kind, mean=float(value)),
                higher_is_better=directions.get(metric) is not False,
            )
    return values


def _by_document(metric: str, documents: Iterable[Any], *, mean: float) -> tuple[float, ...]:
    """The metric of each document; empty where it is not a number whose mean is `mean`."""
    ordered = sorted(documents, key=lambda each: each["doc_id"])
    values = [each.get(metric) for each in ordered]
    if not values or not all(map(_is_number, values)):
        return ()
    numbers = tuple(map(float, values))
    if math.isclose(fmean(numbers), mean, abs_tol=1e-9):
        return numbers
    return ()


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
