"""The time of training by part: data, forward, backward, optimizer; nothing waits for a GPU to be
timed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

Mark = float | torch.cuda.Event


class PartTimes:
    """Seconds of each part since they were last taken.

    On a GPU the program runs ahead of the device, which notes by events when it came by: they are
    looked at when the step's loss has been read, and the device is past them.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        self._spans: list[tuple[str, Mark, Mark]] = []

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        start = self._mark()
        try:
            yield
        finally:
            self._spans.append((part, start, self._mark()))

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, as a part."""

        def with_time(*arguments: Any, **named: Any) -> Any:
            with self.of(part):
                return call(*arguments, **named)

        return with_time

    def take(self) -> dict[str, float]:
        """By part, and begins again."""
        seconds: dict[str, float] = {}
        for part, start, end in self._spans:
            seconds[part] = seconds.get(part, 0.0) + _seconds_between(start, end)
        self._spans.clear()
        return seconds

    def _mark(self) -> Mark:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _seconds_between(start: Mark, end: Mark) -> float:
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    assert isinstance(start, torch.cuda.Event)
    assert isinstance(end, torch.cuda.Event)
    end.synchronize()
    return start.elapsed_time(end) / 1000


class TimeParts(TrainerCallback):
    """Each step's entry of the log history says how long its parts took in this process."""

    def __init__(self, times: PartTimes, engine: Callable[[], Any]) -> None:
        self._times = times
        self._engine = engine

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        engine = self._engine()
        engine.backward = self._times.timed("backward", engine.backward)
        engine.step = self._times.timed("optimizer", engine.step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs is not None and "loss" in logs:
            took = {part: round(seconds, 4) for part, seconds in self._times.take().items()}
            state.log_history[-1]["part_seconds"] = took  # pyright: ignore[reportArgumentType]


def part_seconds(history: list[dict[str, Any]]) -> dict[str, float]:
    """Of the whole training that the history tells, by part, the longest first.

    `save` is how long checkpoints held training, `held_out` how long held-out loss took.
    """
    total: dict[str, float] = {}
    for entry in history:
        took = dict(entry.get("part_seconds", {}))
        took |= {part: entry[f"{part}_s"] for part in ("save", "held_out") if f"{part}_s" in entry}
        for part, seconds in took.items():
            total[part] = total.get(part, 0.0) + seconds
    longest = sorted(total, key=lambda part: -total[part])
    return {part: round(total[part], 2) for part in longest}
