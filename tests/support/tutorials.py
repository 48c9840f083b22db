"""The commands of a tutorial in docs/, as a person copies them: in order, in one shell, each with
the exit code that the text gives it."""

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXPECTED = re.compile(r"#\s+exit code (\d+)\s*$")


@dataclass(frozen=True)
class Command:
    line: str
    expected: int


def commands_of(document: Path, heading: str) -> list[Command]:
    """Every line below the heading that is indented as code is, up to the next heading of its
    rank."""
    text = document.read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line.strip() for line in section.splitlines() if re.match(r" {4,}\S", line)]
    found = [(line, EXPECTED.search(line)) for line in lines]
    return [Command(line, int(code[1]) if code else 0) for line, code in found]


def run_commands(
    commands: list[Command], folder: Path, env: dict[str, str]
) -> list[tuple[str, int, str]]:
    """Each command's line, exit code and output; what one exports or changes, the next finds."""
    script = [f'hagane() {{ {shlex.quote(sys.executable)} -W ignore -m pipelines.cli "$@"; }}']
    script += [f'python() {{ {shlex.quote(sys.executable)} -W ignore "$@"; }}']
    for command in commands:
        script += [
            f"printf '\\n>>> %s\\n' {shlex.quote(command.line)}",
            command.line,
            "printf '\\n<<< %s\\n' $?",
        ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    blocks = re.findall(r"\n>>> (.*?)\n(.*?)\n<<< (\d+)\n", done.stdout, re.DOTALL)
    assert len(blocks) == len(commands), done.stdout + done.stderr
    return [(line, int(code), output + done.stderr) for line, output, code in blocks]
