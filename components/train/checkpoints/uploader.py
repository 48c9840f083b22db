"""The program beside each training process that uploads its files: one part a line on stdin, one
answer a line on stdout.

A thread would take a third of the training's speed on two cores; a process of its own takes none
when a core is free.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from types import FrameType
from typing import Any

from tenacity import RetryCallState, Retrying, stop_after_delay, wait_random_exponential

from components.shared.errors import HaganeError, ObjectDamaged, StoreError, StoreUnreachable
from components.shared.events import event_of
from components.shared.processes import end_with_parent
from components.shared.spec.results import KeepSpec
from components.shared.step import Log, open_run
from components.shared.store.storage import Store
from components.train.checkpoints.commit import Part, prune, store_part

MOST_UNFINISHED = 2
"""Parts that may wait or be on their way before a save has to wait: one uploading, one written."""
GIVE_UP_S = 600.0
"""How long a part is tried again while the store cannot be reached, beyond the 50 s that boto3
itself tries each request."""
LONGEST_PAUSE_S = 30.0
MOST_DAMAGED = 4
"""Tries of a part that came to the store as something else: a bit that changed on the way does not
do so again."""


class BackgroundUploads:
    """Uploads of one training process, in order. Training is held only when two checkpoints are
    still unfinished.

    `problem` is what became of the first part that could not be stored; those behind it are tried
    all the same.
    """

    def __init__(self, run: str, log: Log) -> None:
        self.problem: str | None = None
        self._log = log
        self._run = run
        self._unfinished: deque[Part] = deque()
        self._changed = threading.Condition()
        self._start()

    @property
    def num_unfinished(self) -> int:
        """Parts that wait or are on their way."""
        return len(self._unfinished)

    def submit(self, part: Part) -> None:
        """The part will be uploaded after those before it; by a new uploader, should the one before
        be gone."""
        self._wait_for_less_than(MOST_UNFINISHED)
        with self._changed:
            if self._gone:
                self._close()
                self._start()
            self._unfinished.append(part)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the reader sees its end, and says so
            self._process.stdin.write(part.model_dump_json() + "\n")
            self._process.stdin.flush()

    def finish(self) -> None:
        """Every part is in the store, or `problem` says why one is not."""
        self._wait_for_less_than(1)
        self._close()

    def _start(self) -> None:
        self._gone = False
        command = [sys.executable, "-m", "components.train.checkpoints.uploader", self._run]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read_answers, daemon=True)
        self._reader.start()

    def _close(self) -> None:
        """The uploader has no more to read, and its end is seen."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended before it had read all
            self._process.stdin.close()
        self._reader.join()

    def _wait_for_less_than(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.num_unfinished < number)

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = event_of(line)
            if (
                answer is None
            ):  # a library's word; were it taken for an answer, nobody would read the next one
                self._log.warning("uploader_said", found=line.rstrip())
                continue
            if answer["event"] != "checkpoint":
                self._log.warning(**answer)
                continue
            if "problem" in answer:
                self.problem = self.problem or answer["problem"]
            else:
                self._log.info(**answer)
            with self._changed:
                self._unfinished.popleft()
                self._changed.notify_all()
        self._process.stdout.close()
        with self._changed:
            if self._process.wait() or self._unfinished:
                steps = ", ".join(str(part.facts.step) for part in self._unfinished)
                if steps:
                    unknown = f"; the checkpoint of step {steps} may not be stored"
                else:
                    unknown = ""
                ended = (
                    "checkpoint: the uploading process ended with exit code "
                    f"{self._process.returncode}"
                )
                self.problem = self.problem or ended + unknown
            for part in self._unfinished:
                part.remove_files()
            self._unfinished.clear()
            self._gone = True
            self._changed.notify_all()


def main() -> None:
    """Stores each part that stdin names, answers, and removes the local files of what is stored or
    cannot be.

    SIGTERM, which all processes of a job get, is left to the training process: what it still sends
    is uploaded. When that is gone, SIGINT ends this one, and boto3 gives up its open upload on the
    way.
    """
    end_with_parent(signal.SIGINT)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, _end_once)
    os.nice(10)
    with suppress(KeyboardInterrupt):
        store, spec = open_run(sys.argv[1])
        store_all(store, spec.checkpoints.keep)


def _end_once(number: int, frame: FrameType | None) -> None:
    """One comes for each thread of the parent that ends: the second must not break off what the
    first one tidies up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def store_all(store: Store, keep: KeepSpec) -> None:
    for line in sys.stdin:
        part = Part.model_validate_json(line)
        start = time.monotonic()
        try:
            stored = patiently(store, part)
        except (HaganeError, OSError) as error:
            answer(
                event="checkpoint",
                problem=(
                    f"checkpoint of step {part.facts.step} is not stored: "
                    f"{str(error).splitlines()[0]}"
                ),
            )
        else:
            answer(
                event="checkpoint",
                epoch=part.facts.epoch,
                step=part.facts.step,
                process_rank=part.process_rank,
                num_bytes=stored.num_bytes,
                committed=stored.committed,
                removed=removed_after(store, keep) if stored.committed else [],
                seconds=round(time.monotonic() - start, 2),
            )
        part.remove_files()


def removed_after(store: Store, keep: KeepSpec) -> list[str]:
    """Folders of the checkpoints that the one just committed made needless; what could not be
    removed now is at the next."""
    try:
        return prune(store, keep)
    except StoreError as error:
        answer(event="prune_failed", found=str(error).splitlines()[0])
        return []


def patiently(store: Store, part: Part) -> Any:
    """`store_part`, again after random, growing pauses while the store cannot be reached, and a few
    times when it has something else than was sent. Raises its StoreError after GIVE_UP_S."""

    def tell(state: RetryCallState) -> None:
        assert state.outcome is not None
        assert state.next_action is not None
        found = str(state.outcome.exception()).splitlines()[0]
        answer(
            event="upload_retry",
            step=part.facts.step,
            found=found,
            pause_s=round(state.next_action.sleep, 1),
        )

    def may_heal(state: RetryCallState) -> bool:
        assert state.outcome is not None
        error = state.outcome.exception()
        return isinstance(error, StoreUnreachable) or (
            isinstance(error, ObjectDamaged) and state.attempt_number < MOST_DAMAGED
        )

    retrying = Retrying(
        retry=may_heal,
        wait=wait_random_exponential(multiplier=1, max=LONGEST_PAUSE_S),
        stop=stop_after_delay(GIVE_UP_S),
        before_sleep=tell,
        reraise=True,
    )
    return retrying(store_part, store, part)


def answer(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
