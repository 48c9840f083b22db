"""A Kubernetes object -> what its published schema has against it: the API's own for built-in kinds, a CRD's for others.

Both refuse fields they do not know, as an API server does not: it drops them, and what was meant never happens.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

CRDS = Path(__file__).parent / "data" / "crds"
OLDEST, NEWEST = "1.28", "1.37"
"""Kubernetes versions between which a field must be known."""


def schema_problems(manifest: dict[str, Any]) -> list[str]:
    """One line for each thing wrong in a CRD's object, and for the first in a built-in one."""
    kind = (manifest["apiVersion"], manifest["kind"])
    if kind in crd_schemas():
        errors = jsonschema.Draft202012Validator(crd_schemas()[kind]).iter_errors(manifest)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}"]
        except kubernetes_validate.SchemaNotFoundError as error:
            return [error.message]
    return []


@cache
def crd_schemas() -> dict[tuple[str, str], Any]:
    """(apiVersion, kind) -> schema, of each CRD in tests/data/crds."""
    found: dict[tuple[str, str], Any] = {}
    for file in CRDS.glob("*.yaml"):
        spec = yaml.safe_load(file.read_text())["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}  # the API server's own, which no CRD spells out
            found[(f"{spec['group']}/{version['name']}", spec["names"]["kind"])] = schema
    return found


def closed(schema: Any) -> Any:
    """The schema with unknown fields refused wherever an API server would drop them."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {
        key: {name: closed(each) for name, each in value.items()} if key == "properties" else closed(value) for key, value in schema.items()
    }
    if schema.get("type") == "object" and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        inner["additionalProperties"] = False
    return inner
