"""One folder for the temporary files of all that a `hagane run` starts: gone at its end, and after a kill at the next start.

$HAGANE_WORK/<run>/pipeline/temporary    the folder's path, while it is there
$HAGANE_WORK/<run>/pipeline/lock         held by a run that is still there (running.py)
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "hagane-run-"
RECORD, LOCK = "temporary", "lock"


@contextmanager
def temporary_folder(pipeline: Path) -> Iterator[Path]:
    """A new folder in the machine's own place for temporary files; those of killed runs of the same HAGANE_WORK are removed first.

    `pipeline`: the run's folder of this name in HAGANE_WORK, whose lock this process holds.
    """
    _remove_left(pipeline)
    for other in pipeline.parents[1].glob(f"*/{pipeline.name}"):
        if other != pipeline:
            _remove_of_killed(other)
    record = pipeline / RECORD
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        record.write_text(folder, encoding="utf-8")
        yield Path(folder)
    record.unlink(missing_ok=True)


def _remove_left(pipeline: Path) -> None:
    """Only a folder that this program can have made: a record that says otherwise is removed alone."""
    record = pipeline / RECORD
    if not record.is_file():
        return
    left = Path(record.read_text(encoding="utf-8"))
    if left.name.startswith(PREFIX) and left.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(left, ignore_errors=True)  # follows no link
    record.unlink(missing_ok=True)


def _remove_of_killed(pipeline: Path) -> None:
    """What a run left that is no longer there; its lock is held meanwhile, so that it cannot start again."""
    with suppress(OSError), (pipeline / LOCK).open("a+") as lock:  # it runs, or it is another user's
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_left(pipeline)
