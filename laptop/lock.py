"""One process at a time, however many were started."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """No other process of this machine is inside a block under the same lock file; waits for the
    one that is.

    The kernel frees the lock with the process, so a killed one blocks nobody. The file stays.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
