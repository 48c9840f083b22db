"""Files that the training libraries read -> every value with its reason, and the settings that
hagane leaves out."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
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
WIDE = 120
"""Columns of a terminal from which three columns can be read side by side."""
VALUE_COLUMNS = 40
INDENT = 4


@dataclass(frozen=True)
class Setting:
    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Settings:
    """Settings under a heading: a table where the terminal is wide, else each reason below its
    setting."""

    title: str
    rows: list[Setting]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        yield Text(self.title, style="bold")
        if options.max_width >= WIDE:
            yield self._side_by_side()
        else:
            yield from self._stacked()

    def _side_by_side(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold", max_width=VALUE_COLUMNS)
        table.add_column(style="dim", overflow="fold")
        for row in self.rows:
            table.add_row(row.name, row.value, row.reason)
        return table

    def _stacked(self) -> Iterator[RenderableType]:
        for row in self.rows:
            yield Text(f"{row.name} = {row.value}", overflow="fold")
            if row.reason:
                yield Padding(Text(row.reason, style="dim", overflow="fold"), (0, 0, 0, INDENT))


def explain_screen(plan: Plan, folder: Path) -> RenderableType:
    """The settings of each file of the plan's folder, and the TrainingArguments that are not set,
    those of one reason together."""
    parts: list[RenderableType] = []
    for name, title in FILES.items():
        file = folder / f"{name}.json"
        if file.is_file():
            values = leaves(json.loads(file.read_bytes()))
            rows = [
                Setting(field, _written(value), plan.file_reason(name, field))
                for field, value in values
            ]
            parts += [Text(), Settings(f"{title} ({name}.json)", rows)]
    given = json.loads((folder / "training_args.json").read_bytes())
    parts += [Text(), Text("TrainingArguments that hagane does not set", style="bold")]
    for reason, names in left_out(given).items():
        parts.append(Text(f"{reason}:", style="dim", overflow="fold"))
        parts.append(Padding(Text(", ".join(names), overflow="fold"), (0, 0, 0, INDENT)))
    return Group(*parts)


def left_out(given: dict[str, Any]) -> dict[str, list[str]]:
    """Reason -> the TrainingArguments that are not set for it, the reason of most names first."""
    names_of: dict[str, list[str]] = {}
    for name, rule in sorted(RULES.items()):
        if name not in given:
            names_of.setdefault(rule.note or f"see {rule.spec_field}", []).append(name)
    return dict(sorted(names_of.items(), key=lambda each: -len(each[1])))


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
