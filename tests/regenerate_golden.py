"""`python -m tests.regenerate_golden`: writes every generated file again; `make golden` fails when
git then sees a difference."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import yaml
from pydantic import BaseModel

from components.shared.job import endings
from components.shared.spec.data import SourceSpec
from components.shared.spec.run_spec import RunSpec
from components.write_report.page import render_page
from pipelines.finetune.compiling import compile_pipeline
from pipelines.schedules.file import Schedule, ScheduleFile
from tests.support import config_fields, example_jobs
from tests.support.example_plans import document
from tests.support.example_trainjob import trainjob_text
from tests.support.field_docs import field_docs
from tests.support.plan_schema import schema_text
from tests.unit.write_report.example_run import find_example_run

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


def spec_reference() -> str:
    """docs/spec.md: every field of the spec with its default and its docstring."""
    lines = [
        "# The spec, field by field",
        "",
        "Generated from the docstrings in components/shared/spec/ by `make golden`.",
        "",
    ]
    lines += ["| field | default | what it is |", "|---|---|---|", *_rows(RunSpec, "")]
    lines += ["", "A source, where `data.train` or `data.held_out` is a list of them:", ""]
    lines += [
        "| field | default | what it is |",
        "|---|---|---|",
        *_rows(SourceSpec, "data.train[]."),
    ]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows: list[str] = []
    docs = field_docs(model)
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            rows += _rows(inner, f"{prefix}{name}.")
            continue
        default = (
            "required"
            if field.is_required()
            else f"`{_as_yaml(field.get_default(call_default_factory=True))}`"
        )
        choices = [
            repr(choice)
            for choice in get_args(inner)
            if isinstance(choice, (str, int)) and not isinstance(choice, type)
        ]
        allowed = f" One of {', '.join(choices)}." if len(choices) > 1 else ""
        text = " ".join(docs.get(name, "").split()) + allowed
        rows.append(f"| `{prefix}{name}` | {default} | {text.replace('|', chr(92) + '|')} |")
    return rows


def _as_yaml(value: object) -> str:
    """The default as a spec would state it: JSON is YAML, and a word that YAML reads as text stands
    without quotes."""
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)


def schedule_reference(page: str) -> str:
    """docs/schedules.md with the fields of a file of schedules between its marks."""
    table = "\n".join(
        [
            "| field | default | what it is |",
            "|---|---|---|",
            *_rows(ScheduleFile, ""),
            *_rows(Schedule, "schedules[]."),
        ]
    )
    return re.sub(
        "(<!-- fields -->\n).*(<!-- /fields -->)",
        lambda found: f"{found[1]}{table}\n{found[2]}",
        page,
        flags=re.DOTALL,
    )


def endings_reference(page: str) -> str:
    """docs/cluster.md with the table of endings between its marks."""
    return re.sub(
        "(<!-- endings -->\n).*(<!-- /endings -->)",
        lambda found: f"{found[1]}{endings.table()}\n{found[2]}",
        page,
        flags=re.DOTALL,
    )


def report_page() -> str:
    """tests/golden/report.html: the report of the example run."""
    with TemporaryDirectory() as folder:
        return render_page(find_example_run(Path(folder, "store")))


def main() -> None:
    (ROOT / "docs" / "spec.md").write_text(spec_reference(), encoding="utf-8")
    schedules = ROOT / "docs" / "schedules.md"
    schedules.write_text(
        schedule_reference(schedules.read_text(encoding="utf-8")), encoding="utf-8"
    )
    cluster = ROOT / "docs" / "cluster.md"
    cluster.write_text(endings_reference(cluster.read_text(encoding="utf-8")), encoding="utf-8")
    compile_pipeline(GOLDEN / "finetune.yaml")
    fields = ROOT / "components" / "shared" / "model" / "config_fields.json"
    fields.write_text(config_fields.document(), encoding="utf-8")
    (ROOT / "docs" / "plan.schema.json").write_text(schema_text(), encoding="utf-8")
    (GOLDEN / "plans.md").write_text(document(), encoding="utf-8")
    example_jobs.write_all(GOLDEN / "pytorchjob")
    (GOLDEN / "trainjob.yaml").write_text(trainjob_text(), encoding="utf-8")
    (GOLDEN / "report.html").write_text(report_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
