"""Files that the training libraries read -> every value with its reason, and the settings that
hagane leaves out."""

import json
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from components.shared.documents.plan import Plan
from components.shared.tree import leaves
from pipelines.imports.training_args_keys import RULES

FILES = {
    "training_args": "TrainingArguments of transformers",
    "deepspeed": "DeepSpeed",
    "lora": "LoraConfig of PEFT",
}


def explain_screen(plan: Plan, folder: Path) -> RenderableType:
    """A table for each file of the plan's folder, and one of TrainingArguments that are not set."""
    parts: list[RenderableType] = []
    for name, title in FILES.items():
        file = folder / f"{name}.json"
        if file.is_file():
            values = leaves(json.loads(file.read_bytes()))
            rows = [
                (field, _value(value), plan.file_reason(name, field)) for field, value in values
            ]
            parts += [Text(), _table(f"{title} ({name}.json)", rows)]
    given = json.loads((folder / "training_args.json").read_bytes())
    left_out = [
        (name, "", rule.note or rule.spec_field)
        for name, rule in sorted(RULES.items())
        if name not in given
    ]
    parts += [Text(), _table("TrainingArguments that hagane does not set", left_out)]
    return Group(*parts)


def _table(title: str, rows: list[tuple[str, str, str]]) -> Table:
    table = Table(
        box=None, show_header=False, padding=(0, 2, 0, 0), title=title, title_justify="left"
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=30)
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*row)
    return table


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
