"""What the commands take for a run: a spec or a URI."""

from pathlib import Path

import pytest

from components.shared.errors import SpecError
from pipelines.commands.options import run_uri

SPEC = "{name: demo, store: runs, model: {source: m}, data: {train: t.jsonl}}"


def test_a_run_is_named_by_its_spec_or_by_its_uri(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC)
    assert run_uri(str(file)) == f"{tmp_path}/runs/demo"
    assert run_uri(str(file), ["name=other"]) == f"{tmp_path}/runs/other"
    assert run_uri("s3://bucket/runs/demo") == "s3://bucket/runs/demo"


def test_fields_cannot_be_set_of_a_run_that_is_named_by_its_uri() -> None:
    with pytest.raises(SpecError, match=r"--set: sets fields of a spec, but s3://.* is no file"):
        run_uri("s3://bucket/runs/demo", ["name=other"])


def test_a_spec_that_is_not_there_is_not_taken_for_a_run(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: no such file"):
        run_uri(str(tmp_path / "none.yaml"))
