"""The plan's documents -> docs/plan.schema.json: what `hagane plan --json` prints, field by
field."""

import json
from typing import Any, get_args

from pydantic import BaseModel

from components.shared.documents.plan import Plan
from tests.support.field_docs import field_docs

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def plan_schema() -> dict[str, Any]:
    """pydantic's schema of the plan, each field with its docstring as description."""
    schema = Plan.model_json_schema(mode="serialization")
    documents = {Plan.__name__: Plan, **documents_in(Plan)}
    _describe(schema, Plan)
    for name, definition in schema["$defs"].items():
        _describe(definition, documents[name])
    head = {
        "$schema": DRAFT,
        "title": "A plan, as `hagane plan SPEC --json` prints it",
        "description": "Generated from components/shared/documents/plan.py by `make golden`.",
    }
    return head | {key: value for key, value in schema.items() if key not in head}


def documents_in(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The models that fields of this one are made of, by name, however deep."""
    found: dict[str, type[BaseModel]] = {}
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            found |= {part.__name__: part, **documents_in(part)}
    return found


def _parts(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts(inner)]


def _describe(definition: dict[str, Any], model: type[BaseModel]) -> None:
    """Each property says what it is, and has no title, which would only repeat its name."""
    if "description" in definition:
        definition["description"] = " ".join(definition["description"].split())
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            docs |= field_docs(base)
    for name, content in definition["properties"].items():
        content.pop("title", None)
        if name in docs:
            content["description"] = " ".join(docs[name].split())


def schema_text() -> str:
    return json.dumps(plan_schema(), indent=1, ensure_ascii=False) + "\n"
