"""What one pod prints: passed on line by line, kept in a file here, and in the run's folder when it
ends."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from components.launch_training.backends.local import LAST_LINES
from components.shared.errors import StoreError
from components.shared.store.layout import LOGS
from components.shared.store.storage import Store


@dataclass
class PodLog:
    name: str
    thread: threading.Thread
    file: Path
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    """The last that are no events."""
    problems: list[str] = field(default_factory=list)
    """What its processes said of their own failure."""


def read_log(
    pod: str,
    lines: Iterator[str],
    file: Path,
    store: Store,
    take: Callable[[str], None],
    *,
    only_new: bool,
) -> PodLog:
    """A thread hands every line to `take` and writes it into the file; at the end the file is in
    the store's `logs/`.

    `only_new`: the lines go on from those that an earlier launcher may have left in the file.
    """

    def read() -> None:
        with file.open("a" if only_new else "w", encoding="utf-8", buffering=1) as kept:
            for line in lines:
                kept.write(line + "\n")
                take(line)
        with suppress(StoreError):  # a log that cannot be kept ends no training
            store.upload(file, f"{LOGS}/{file.name}")

    file.parent.mkdir(parents=True, exist_ok=True)
    log = PodLog(pod, threading.Thread(target=read, daemon=True), file)
    log.thread.start()
    return log


def store_log_so_far(log: PodLog, store: Store) -> None:
    """What was printed by now is in the store's `logs/`, though the pod goes on: from memory, as an
    upload checks that a file stays."""
    with suppress(StoreError, FileNotFoundError):
        store.write_bytes(f"{LOGS}/{log.file.name}", log.file.read_bytes())
