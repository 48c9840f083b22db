"""docs/reference/commands.md and events.md, made from the command line and from the code."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup

from pipelines.cli import app

ROOT = Path(__file__).parents[2]
MADE = "Written by `make golden`."


def root_command() -> TyperGroup:
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def all_commands() -> Iterator[tuple[str, Any]]:
    """`schedules plan` and the like, with their commands, in the order of `hagane --help`."""
    for name, command in root_command().commands.items():
        if isinstance(command, TyperGroup):
            for inner, each in command.commands.items():
                yield f"{name} {inner}", each
        else:
            yield name, command


def commands_page() -> str:
    lines = [
        "# Commands",
        "",
        f"{MADE} `hagane COMMAND --help` prints the same. `-v`, `-q` and `--env-file FILE` may "
        "stand before or after the command.",
    ]
    for name, command in all_commands():
        about = (command.help or "").strip()
        lines += ["", f"## hagane {name}", "", about, "", "| option | what it does |", "|---|---|"]
        lines += [_row(each) for each in command.params if _shown(each)]
    return "\n".join(lines) + "\n"


def _shown(parameter: Any) -> bool:
    return not getattr(parameter, "hidden", False) and parameter.name != "help"


def _row(parameter: Any) -> str:
    metavar = parameter.metavar or ""
    names = "`, `".join(parameter.opts + parameter.secondary_opts)
    if isinstance(parameter, TyperArgument):
        label = f"`{metavar or (parameter.name or '').upper()}`"
    else:
        label = f"`{names}`" + (f" {metavar}" if metavar else "")
    help_text = " ".join((getattr(parameter, "help", None) or "").split())
    return f"| {label} | {help_text} |".replace("||", "|")


def events() -> dict[str, tuple[str, ...]]:
    """Event -> the components that log it, from calls such as `log.info("claimed", …)`."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "components").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = _event_of(node)
            if name is not None:
                component = file.relative_to(ROOT / "components").parts[0]
                found.setdefault(name, set()).add(component)
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def _event_of(node: ast.AST) -> str | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
        return None
    first = node.args[0]
    if node.func.attr not in ("info", "warning", "error") or not isinstance(first, ast.Constant):
        return None
    if isinstance(first.value, str) and first.value.isidentifier():
        return first.value
    return None


def events_page() -> str:
    lines = [
        "# Events",
        "",
        f"{MADE} Each step prints one event per line: `event=claimed run=s3://…`. With "
        "`HAGANE_LOG=json` in the environment each line is a JSON object with the key `event`. "
        "Fields differ by event; `failed` has `exit_code` and `problems`.",
        "",
        "| event | printed by |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {', '.join(where)} |" for name, where in events().items()]
    return "\n".join(lines) + "\n"
