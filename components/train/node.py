"""`python -m components.train.node RUN`: torchrun for the training processes of one pod, and an
exit code that says how they ended.

torchrun itself ends with 1 however its processes did. Here the code of the first process to fail by
itself is kept, as a shell tells it: below 128 it was the program's own and would fail again, from
128 on a signal, SIGTERM obeyed, a lost peer or a fault of a GPU, after which the same may start
anew (components/shared/job/endings.py). A PyTorchJob's restart policy ExitCode goes by that.

A TrainJob takes no environment from ConfigMaps and Secrets: there they are files, read here.
"""

import os
import sys
import traceback
from pathlib import Path

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from components.shared.errors import PeerLost
from components.shared.job.endings import ending_of
from components.shared.job.training_job import ENVIRONMENT_VARIABLE, environment_in


def main() -> None:
    folder = os.environ.get(ENVIRONMENT_VARIABLE)
    if folder is not None:
        os.environ |= environment_in(Path(folder))
    sys.exit(run_node(sys.argv[1:]))


def run_node(arguments: list[str]) -> int:
    """Exit code of this pod. How many processes and who their master is, torchrun reads from PET_
    variables."""
    share_cores()
    try:
        run(parse_args(["-m", "components.train", *arguments]))
    except ChildFailedError as error:
        code = own_error(error)
        if code < 0:
            return 128 - code
        return code
    except SignalException as error:
        return 128 + error.sigval
    except DistError as error:  # the processes did not find each other in time
        traceback.print_exc()
        return ending_of(error).code
    return 0


def own_error(error: ChildFailedError) -> int:
    """Exit code of the first process to fail by itself: those it was joined to lose it, and may be
    seen to end before it does."""
    codes = [
        each.exitcode for each in sorted(error.failures.values(), key=lambda each: each.timestamp)
    ]
    return next((code for code in codes if code != PeerLost.exit_code), codes[0])


def share_cores() -> None:
    """Where the plan could not say with how many threads a process computes, each has its share of
    this pod's cores. torchrun would give each of several processes one thread, and Adam on the host
    would crawl."""
    reported = os.environ.get("PET_NPROC_PER_NODE", "1")
    processes = (
        int(reported) if reported.isdigit() else 1
    )  # torchrun also takes words, such as auto
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))


if __name__ == "__main__":
    main()
