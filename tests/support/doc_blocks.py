"""Code blocks of tutorials and how-to pages, and which of three kinds each is: run by a test,
validated by one, or marked as not run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.command_pages import root_command
from tests.support.schemas import schema_problems

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(\w+)( run)?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"\*(Not run here by our tests|文書のテストでは未実行): [^*]+\*\s*\Z")


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str
    is_run: bool
    is_marked: bool

    @property
    def kind(self) -> str:
        if self.is_marked:
            return "marked"
        return "run" if self.is_run else "validated"

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]


def pages() -> list[Path]:
    """Every tutorial and how-to, in both languages."""
    folders = (DOCS / part for part in ("tutorials", "how-to", "ja/tutorials", "ja/how-to"))
    return sorted(page for folder in folders for page in folder.glob("*.md"))


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        indent = len(match[1])
        body = "\n".join(line[indent:] for line in match[4].splitlines())
        marked = MARK.search(text[: match.start()].rstrip()) is not None
        found.append(Block(page, match[2], body, match[3] is not None, marked))
    return found


def problems_of_command(line: str) -> list[str]:
    """Why a line is no command of hagane with options that it has; nothing is run."""
    words = shlex.split(line.partition(" > ")[0], comments=True)
    if not words or words[0] != "hagane":
        return [f"{line}: only commands of hagane can be validated; mark the block as not run"]
    command: Any = root_command()
    arguments = words[1:]
    while hasattr(command, "commands"):
        name, *arguments = arguments or [""]
        if name not in command.commands:
            return [f"{line}: no command {name!r}"]
        command = command.commands[name]
    try:
        command.make_context(command.name, list(arguments))
    except Exception as error:  # whatever the parser raises for words it does not take
        return [f"{line}: {getattr(error, 'message', error)}"]
    return []


def problems_of_yaml(text: str) -> list[str]:
    """Why it is neither a spec nor an object that Kubernetes takes."""
    from pydantic import ValidationError

    from components.shared.spec.file import parse_spec

    problems: list[str] = []
    for tree in yaml.safe_load_all(text):
        if "apiVersion" in tree:
            problems += schema_problems(tree)
            continue
        try:
            parse_spec(tree)
        except ValidationError as error:
            problems.append(str(error))
    return problems
