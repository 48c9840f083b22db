"""The tables of fields in the docs, read back as the YAML that they show."""

import re
from functools import reduce

import pytest
import yaml
from pydantic import BaseModel

from components.shared.spec.run_spec import RunSpec
from tests.support.example_plans import ROOT

ROW = re.compile(r"^\| `([a-z_.]+)` \| `(.*?)` \| ", re.MULTILINE)
DEFAULTS = ROW.findall((ROOT / "docs" / "spec.md").read_text(encoding="utf-8"))


def smallest_spec() -> RunSpec:
    """A spec that states only what has no default."""
    required = {"name": "r", "store": "s", "model": {"source": "m"}, "data": {"train": "t"}}
    return RunSpec.model_validate(required)


@pytest.mark.parametrize(("field", "shown"), DEFAULTS)
def test_a_default_in_the_reference_is_read_by_yaml_as_the_fields_default(field: str, shown: str) -> None:
    value = reduce(getattr, field.split("."), smallest_spec())
    as_json = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    listed = list(as_json) if isinstance(as_json, tuple) else as_json
    assert yaml.safe_load(shown) == listed


def test_the_reference_shows_a_default_for_most_fields() -> None:
    assert len(DEFAULTS) >= 60
