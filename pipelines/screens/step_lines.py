"""The log that kfp.local printed -> each step's own lines, without what KFP itself says."""

import re
from collections.abc import Iterable, Iterator

from components.shared.events import event_of
from components.shared.printable import without_escapes

# As kfp 2.17 writes them (local/logging_utils.py, dsl/executor_main.py).
OF_KFP = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - (INFO|WARNING|ERROR) - (.*)")
TASK = re.compile(r"Executing task '([\w-]+)'")
OUTPUTS = re.compile(r"Task '[\w-]+' outputs:")
RULE = re.compile(r"-{20,}")
EXECUTOR = re.compile(r"\s*\[KFP Executor [^\]]+ INFO\]: (.*)")
EXECUTOR_INPUT = "Got executor_input:"
STEP_INDENT = "    "
"""Before each line of a step."""
BAR = re.compile(r"\d+%\|.*\|")
"""A progress bar of tqdm."""


def step_lines(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(Step, line) of what the steps printed, empty lines and progress bars left out. The step is
    empty before KFP has named one. Of KFP's own lines errors stay."""
    step = ""
    block_end: re.Pattern[str] | None = None
    for line in map(without_escapes, lines):
        own = OF_KFP.fullmatch(line)
        if own is not None:
            task = TASK.search(own[2])
            if task is not None:
                step = task[1].replace("-", "_")
            block_end = RULE if OUTPUTS.search(own[2]) else None
            if own[1] == "ERROR":
                yield step, own[2]
            continue
        if block_end is not None:
            if block_end.fullmatch(line):
                block_end = None
            continue
        executor = EXECUTOR.fullmatch(line)
        if executor is not None:
            if executor[1].startswith(EXECUTOR_INPUT):
                block_end = re.compile(f"{STEP_INDENT}}}")
        elif _says_something(line):
            yield step, line.removeprefix(STEP_INDENT)


def _says_something(line: str) -> bool:
    if event_of(line) is not None:
        return True
    return bool(line.strip()) and not RULE.fullmatch(line) and not BAR.search(line)
