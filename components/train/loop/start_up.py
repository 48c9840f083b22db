"""Where the time goes between the start of a training process and the end of its first step."""

import os
import time
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.step import Log


class StartUp:
    """Seconds of each part, in order; a part begins where the one before it ended."""

    def __init__(self, begun: float) -> None:
        """`begun`: when the process was started, by `time.monotonic`."""
        self.seconds: dict[str, float] = {}
        self._last = begun

    def end_of(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self._last, 3)
        self._last = now


def process_started() -> float:
    """When the kernel started this process, by `time.monotonic`; now where it does not tell
    (proc(5))."""
    file = Path("/proc/self/stat")
    if not file.exists():
        return time.monotonic()
    # The second field is the program's name in brackets, which may hold spaces; the start is the
    # 22nd.
    ticks = int(file.read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age


class EndOfPart(TrainerCallback):
    """Among the callbacks of the beginning of training: a part of the start-up ends here.

    Trainer warns of two callbacks of one class, so each part has its own.
    """

    part: str

    def __init__(self, start_up: StartUp) -> None:
        self._start_up = start_up

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._start_up.end_of(self.part)


class EngineIsBuilt(EndOfPart):
    part = "deepspeed"


class RowsAreProved(EndOfPart):
    part = "proof_of_rows"


class HeldOutIsMeasured(EndOfPart):
    part = "held_out_loss"


class FirstStep(TrainerCallback):
    """After the first step of this start, the log and the history say how long each part took."""

    def __init__(self, start_up: StartUp, log: Log) -> None:
        self._start_up = start_up
        self._log = log
        self._is_reported = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if self._is_reported:
            return
        self._is_reported = True
        self._start_up.end_of("first_step")
        starts = [entry["start"] for entry in state.log_history if "start" in entry]
        starts[-1]["start_up_s"] = self._start_up.seconds  # pyright: ignore[reportIndexIssue]
        if state.is_world_process_zero:
            total = round(sum(self._start_up.seconds.values()), 2)
            self._log.info("started_up", seconds=total, **self._start_up.seconds)
