"""How the processes of a probe ended -> one message for who asked for `hagane plan --probe`."""

import re

from components.train.gpu_check.groups import Ran

LAST_LINES, LINE_CHARACTERS = 3, 160
ERROR = re.compile(r"Error|Exception|Killed|SIG[A-Z]+|[Oo]ut of memory")
FIXES = {
    "CUDA out of memory|OutOfMemoryError": (
        "end other programs on the GPU, or set a smaller training.micro_batch"
    ),
    "Cannot allocate memory|MemoryError|SIGKILL|exitcode: -9": (
        "free host memory, or raise the container's limit: the kernel ended a process that asked "
        "for more"
    ),
    "no kernel image": "probe on a GPU that the installed torch has kernels for",
    "Failed to find C compiler": "set TORCH_DISABLE_NATIVE_JIT=1",
    "No space left": "free some of the folder for temporary files, or name another in TMPDIR",
}
"""Pattern of what the processes said -> how to fix it."""


def failure(ran: Ran) -> str:
    """The message: how it ended, its last lines with an error, what to do."""
    how = ran.problem or "nothing was measured"
    said = "; ".join(_last_errors(ran.lines))
    if said and said not in how:
        how = f"{how} (its last errors: {said})"
    return f"--probe: {how}. Fix: {_fix(ran)}"


def _last_errors(lines: list[str]) -> list[str]:
    """Each once, in their order."""
    errors = [" ".join(line.split())[:LINE_CHARACTERS] for line in lines if ERROR.search(line)]
    return list(dict.fromkeys(errors))[-LAST_LINES:]


def _fix(ran: Ran) -> str:
    for pattern, fix in FIXES.items():
        if re.search(pattern, ran.text):
            return fix
    if ran.exit_code is None:
        return "probe on a faster or less busy machine, or plan without --probe"
    return "see the error, or plan without --probe"
