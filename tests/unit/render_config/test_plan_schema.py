"""docs/plan.schema.json: what a program that reads `hagane plan --json` may rely on."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from components.render_config.probed import with_probe
from components.shared.documents.plan import Plan
from components.shared.documents.probe import MeasuredSteps
from tests.support.example_plans import ROOT, planned_examples
from tests.support.plan_schema import documents_in, schema_text
from tests.unit.render_config.test_probed import measured, planned

FILE = ROOT / "docs" / "plan.schema.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(FILE.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_committed_schema_is_that_of_the_documents() -> None:
    assert FILE.read_text() == schema_text()


def test_every_golden_plan_and_a_probed_one_are_valid(validator: Draft202012Validator) -> None:
    plans = [(name, plan) for name, _, plan in planned_examples()]
    spec, plan = planned()
    plans.append(("probed", with_probe(spec, plan, measured(plan))))
    assert len(plans) > 15
    for name, each in plans:
        errors = [error.message for error in validator.iter_errors(as_printed(each))]
        assert (name, errors) == (name, [])


@pytest.mark.parametrize(
    "change",
    [
        {"num_trainable": "many"},
        {"precision": "fp8"},
        {"extra": 1},
        {"zero": {"stage": 4, "offload_optimizer": False, "offload_parameters": False}},
    ],
)
def test_what_no_plan_says_is_not_valid(
    validator: Draft202012Validator, change: dict[str, Any]
) -> None:
    _, plan = planned()
    assert list(validator.iter_errors(as_printed(plan) | change))


def test_every_field_that_has_a_docstring_is_described() -> None:
    schema = json.loads(FILE.read_text())
    assert schema["properties"]["reasons"]["description"].startswith("Field of the plan, dotted")
    assert MeasuredSteps.__name__ in documents_in(Plan)
    inherited = schema["$defs"]["MemoryPlan"]["properties"]["host"]
    assert inherited["description"] == "Of one node, all its processes together."


def as_printed(plan: Plan) -> Any:
    return json.loads(plan.model_dump_json())
