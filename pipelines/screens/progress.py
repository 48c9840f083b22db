"""The lines of a running pipeline -> what a person wants to see of them, and the whole in a log
file."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from components.shared.events import Event, event_of

# Between two progress lines where there is no terminal to draw a bar on.
QUIET_SECONDS = 5.0


@dataclass
class Outcome:
    """What the events said of how it went."""

    problems: list[str] = field(default_factory=list)
    exit_code: int = 0
    last_line: str = ""


def follow(lines: Iterable[str], log_file: Path, screen: "Screen") -> Outcome:
    """Every line is in the log file, every event was shown."""
    outcome = Outcome()
    with log_file.open("a", encoding="utf-8") as log:
        for line in lines:
            log.write(line)
            log.flush()
            event = event_of(line)
            if event is None:
                outcome.last_line = line.strip() or outcome.last_line
            elif event["event"] == "failed":
                outcome.problems += event["problems"]
                outcome.exit_code = int(event["exit_code"])
            else:
                screen.show(event)
    return outcome


class Screen:
    """Shows events: a live bar on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, steps: tuple[str, ...], *, title: str = "") -> None:
        """`title` stands beside the bar until a step has begun."""
        self._console = console
        self._steps = steps
        self._step = title
        self._last_progress = 0.0
        self._bar = Progress(
            TextColumn("      {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, visible=False, unit="", note="")

    def __enter__(self) -> "Screen":
        if self._console.is_interactive:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_interactive:  # elsewhere rich would print an empty line
            self._bar.stop()

    def show(self, event: Event) -> None:
        event = dict(event)
        name, component = event.pop("event"), event.pop("component")
        event.pop("level", None)
        self.enter(component)
        if name == "progress":
            self._show_progress(event)
        elif name == "checkpoint":
            if event["committed"]:
                if event["epoch"]:
                    of = f"epoch {event['epoch']} (step {event['step']})"
                else:
                    of = f"step {event['step']}"
                self.say(f"checkpoint of {of} is in the store")
            for folder in event["removed"]:
                self.say(f"{folder} is removed, as checkpoints.keep says")
        elif name in ("training_held", "ended"):
            # for the log: milliseconds are no news, and how it ended is reported on the screen's
            # last lines
            pass
        elif name == "held_out":
            if event["epoch"]:
                at = f"epoch {event['epoch']}"
            else:
                at = "before training"
            self._console.print(f"      held-out loss {event['loss']:.4f} {at}")
        else:
            fields = "  ".join(f"{key}={value}" for key, value in event.items())
            self._console.print(Text.assemble(f"      {name.replace('_', ' ')}  ", (fields, "dim")))

    def say(self, line: str) -> None:
        self._console.print(f"      {line}")

    def enter(self, component: str) -> None:
        """The component's step has its heading, once."""
        if component == "train":
            step = "launch_training"
        else:
            step = component
        if step == self._step or step not in self._steps:
            return
        self._step = step
        self._bar.update(self._task, visible=False)
        self._console.print(
            f"{self._steps.index(step) + 1}/{len(self._steps)}   {step}", style="bold"
        )

    def _show_progress(self, event: Event) -> None:
        note = _note(event)
        self._bar.update(
            self._task,
            completed=event["done"],
            total=event["total"],
            unit=event["unit"],
            note=note,
            visible=True,
            description=self._step,
        )
        now = time.monotonic()
        is_last = event["done"] == event["total"]
        if not self._console.is_interactive and (
            is_last or now - self._last_progress >= QUIET_SECONDS
        ):
            self._last_progress = now
            if self._step in self._steps:
                before = ""
            else:
                before = f"{self._step}: "
            self._console.print(
                f"      {before}{event['done']}/{event['total']} {event['unit']}  {note}"
            )


def _note(event: Event) -> str:
    if "loss" in event:
        parts = [f"loss {event['loss']:.3f}"]
    else:
        parts = []
    if "tokens_s" in event:
        parts.append(f"{event['tokens_s']} tokens/s")
    if event.get("left_s") is not None:
        parts.append(f"{duration(event['left_s'])} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """`75 s` or `3 min 20 s`: what a person reads at a glance."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s"
