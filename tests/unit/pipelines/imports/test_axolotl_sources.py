"""Sources of an Axolotl YAML: what of them the spec says, and that the rest is named."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.pipelines.imports.test_settling import AXOLOTL, imported


def test_columns_of_an_axolotl_source_are_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    source = {
        **{"path": "org/data", "name": "ja", "type": "alpaca", "revision": "v1"},
        **{"field_instruction": "q", "field_output": "a", "shards": 10, "ds_type": "json"},
    }
    found = imported(tmp_path, AXOLOTL | {"datasets": [source]})
    assert found.spec["data"]["train"] == [
        {
            "path": "hf://org/data@v1",
            "format": "alpaca",
            "columns": {"instruction": "q", "output": "a"},
        }
    ]
    lost = {key.name for key in found.keys if key.fate == "lost"}
    assert lost == {"datasets[0].name", "datasets[0].shards"}


@pytest.mark.parametrize(
    ("source", "taken", "lost"),
    [
        (
            {"path": "a/b", "type": {"field_instruction": "q", "format": "[INST]"}},
            {"path": "hf://a/b", "format": "alpaca", "columns": {"instruction": "q"}},
            {"datasets[0].type.format"},
        ),
        (
            {"path": "a/b", "type": "chat_template", "field_messages": "turns"},
            {"path": "hf://a/b", "format": "messages", "columns": {"messages": "turns"}},
            set(),
        ),
        ({"path": "a/b", "type": "oasst"}, {"path": "hf://a/b"}, {"datasets[0].type"}),
        ({"path": "a/b", "data_files": ["c.json"]}, {"path": "hf://a/b/c.json"}, set()),
        ({"path": "json", "data_files": "c.json"}, {"path": "c.json"}, set()),
    ],
)
def test_each_part_of_an_axolotl_source_is_taken_or_named(
    tmp_path: Path, source: dict[str, Any], taken: dict[str, Any], lost: set[str]
) -> None:
    found = imported(tmp_path, AXOLOTL | {"datasets": [source]})
    assert found.spec["data"]["train"] == [taken]
    assert {key.name for key in found.keys if key.fate == "lost"} == lost
