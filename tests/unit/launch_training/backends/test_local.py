import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from components.launch_training.backends.local import follow_to_end
from components.shared.errors import PeerLost, RunFailed
from components.shared.step import step_log


@pytest.mark.parametrize("seen_first", [0, 1])
@pytest.mark.parametrize(("code", "told"), [(-9, "process 1 was killed by SIGKILL"), (1, "process 1 ended with exit code 1")])
def test_the_process_that_ended_is_named_not_the_one_that_lost_it(seen_first: int, code: int, told: str) -> None:
    """torchrun looks at its processes ten times a second, so both may have ended when it looks."""
    failures = {rank: ProcessFailure(rank, 100 + rank, exit_code, "none") for rank, exit_code in ((0, PeerLost.exit_code), (1, code))}
    for rank, failure in failures.items():
        failure.timestamp = 0 if rank == seen_first else 1
    summary = f"{ChildFailedError('components.train', failures)}\n"
    with step_log("launch_training") as log, pytest.raises(RunFailed, match=told):
        follow_to_end(summary.splitlines(keepends=True), lambda: 1, log)
