"""The thread that writes a checkpoint's files to the local disk while training goes on."""

import threading
import time
from collections.abc import Callable

from safetensors import SafetensorError

WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
"""What Python, torch and safetensors raise when a file cannot be written."""


class LocalWriter:
    """One list of writes at a time. `held_s` sums the seconds that callers waited for it, or could not run beside it."""

    def __init__(self) -> None:
        self.held_s = 0.0
        self._thread: threading.Thread | None = None
        self._written = threading.Event()
        self._written.set()

    def begin(self, writes: list[Callable[[], object]], *, then: Callable[[], object], failed: Callable[[BaseException], None]) -> None:
        """All writes are being made, in order, then `then` is called; `failed` is, with the first error. Waits for the list before.

        An error that no full or broken disk explains is raised in the thread too, so that its traceback is seen.
        """
        self.wait()
        self._written.clear()

        def work() -> None:
            try:
                for write in writes:
                    write()
                self._written.set()
                then()
            except WRITE_ERRORS as error:
                failed(error)
            except BaseException as error:
                failed(error)
                raise
            finally:
                self._written.set()

        self._thread = threading.Thread(target=work, name="checkpoint-writer")
        self._thread.start()

    def add_held(self, seconds: float) -> None:
        """By a write, in the thread: the caller could not run for so long."""
        self.held_s += seconds

    def wait_written(self) -> None:
        """What is being written was taken from memory: that may change now."""
        start = time.monotonic()
        self._written.wait()
        self.held_s += time.monotonic() - start

    def wait(self) -> None:
        """Nothing is being written, and `then` has returned."""
        if self._thread is not None:
            self._thread.join()
