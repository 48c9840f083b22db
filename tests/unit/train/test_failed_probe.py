"""What `hagane plan --probe` says where its processes failed."""

import pytest

from components.train.gpu_check.groups import Ran
from components.train.step_probe.failure import failure

OF_A_GPU_CHECK = ("--seconds", "above the table", "HAGANE_WORK")
"""In the fixes of `hagane doctor --gpu`, which plan --probe has not."""
TRACE = [
    "Traceback",
    "  File a",
    "RuntimeError: a shape is wrong",
    "RuntimeError: a shape is wrong",
]


@pytest.mark.parametrize(
    ("exit_code", "lines", "fix"),
    [
        (None, ["loading"], "probe on a faster or less busy machine, or plan without --probe"),
        (1, TRACE, "see the error, or plan without --probe"),
        (1, ["OSError: [Errno 28] No space left on device"], "name another in TMPDIR"),
        (1, ["torch.OutOfMemoryError: CUDA out of memory."], "a smaller training.micro_batch"),
        (1, ["worker exitcode: -9"], "raise the container's limit"),
    ],
)
def test_a_failed_probe_has_fixes_of_its_own(
    exit_code: int | None, lines: list[str], fix: str
) -> None:
    message = failure(Ran(exit_code=exit_code, seconds=3, lines=lines))
    assert message.startswith("--probe: ")
    assert fix in message.partition(". Fix: ")[2]
    assert not any(each in message for each in OF_A_GPU_CHECK)


def test_its_last_errors_are_in_the_message_each_once() -> None:
    lines = [*TRACE, "[rank1]: ValueError: an array is empty", "E0000 ChildFailedError: worker"]
    message = failure(Ran(exit_code=1, seconds=3, lines=lines))
    assert "RuntimeError: a shape is wrong; [rank1]: ValueError: an array is empty" in message
    assert message.count("RuntimeError: a shape is wrong") == 1


def test_an_end_without_a_measurement_is_a_failure_too() -> None:
    assert failure(Ran(exit_code=0, seconds=3)).startswith("--probe: nothing was measured. Fix: ")
