"""The program beside each training process that uploads its files: one part a line on stdin, one answer a line on stdout.

A thread would take a third of the training's speed on two cores; a process of its own takes none when a core is free.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Queue
from typing import Any

from components.shared.errors import HaganeError, RunFailed
from components.shared.processes import end_with_parent
from components.shared.step import Log
from components.shared.storage import open_store
from components.train.commit import Part, store_part

# Parts that may wait or be on their way before a save has to wait: one uploading, one written.
MOST_UNFINISHED = 2


class BackgroundUploads:
    """Uploads of one training process, in order. Training is held only when two checkpoints are still unfinished."""

    def __init__(self, run: str, log: Log) -> None:
        self._log = log
        self._num_sent = 0
        self._num_stored = 0
        self._answers: Queue[dict[str, Any]] = Queue()
        command = [sys.executable, "-m", "components.train.uploader", run]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read_answers, daemon=True).start()

    def submit(self, part: Part) -> None:
        """The part will be uploaded. Raises RunFailed when an earlier one could not be."""
        while self._num_sent - self._num_stored >= MOST_UNFINISHED:
            self._take_answer()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(part.model_dump_json() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._take_answer()
        self._num_sent += 1

    def finish(self) -> None:
        """Every part is in the store. Raises RunFailed when one is not."""
        if self._num_sent > self._num_stored:
            self._log.info("waiting_for_uploads", unfinished=self._num_sent - self._num_stored)
        while self._num_sent > self._num_stored:
            self._take_answer()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _take_answer(self) -> None:
        answer = self._answers.get()
        if "problems" in answer:
            raise RunFailed(*answer["problems"])
        self._num_stored += 1

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "problems" not in answer:
                self._log.info("checkpoint", **answer)
            self._answers.put(answer)
        self._answers.put({"problems": [f"checkpoint: the uploading process ended by itself with exit code {self._process.wait()}"]})


def main() -> None:
    """Stores each part that stdin names, answers, and removes the local files of what is stored."""
    end_with_parent()
    os.nice(19)
    store = open_store(sys.argv[1])
    for line in sys.stdin:
        part = Part.model_validate_json(line)
        start = time.monotonic()
        try:
            stored = store_part(store, part)
        except (HaganeError, OSError) as error:
            problems = error.problems if isinstance(error, HaganeError) else (str(error),)
            print(json.dumps({"problems": [f"checkpoint of epoch {part.epoch} is not stored: {p}" for p in problems]}), flush=True)
            return
        for name in part.names:
            Path(part.root, name).unlink()
        answer = {
            "epoch": part.epoch,
            "step": part.step,
            "process_rank": part.process_rank,
            "num_bytes": stored.num_bytes,
            "committed": stored.committed,
            "seconds": round(time.monotonic() - start, 2),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
