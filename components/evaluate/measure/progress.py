"""Progress events with the time left, at most one a second."""

import time
from collections.abc import Callable

from components.shared.step import Log


class Progress:
    """Counts rows and questions alike. The last one is always reported."""

    def __init__(self, total: int, log: Log, *, now: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._log = log
        self._now = now
        self._start = self._told = now()
        self._done = 0

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = self._now()
        if now - self._told >= 1 or self._done == self._total:
            self._told = now
            left_s = (now - self._start) / self._done * (self._total - self._done)
            self._log.info("progress", done=self._done, total=self._total, unit="rows and questions", left_s=round(left_s, 1))
