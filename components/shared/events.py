"""The events that a program prints as JSON (log.py) -> values, for the program that started it.

Apart from log.py, since whoever only reads events does without structlog, a tenth of a second.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from components.shared.errors import HaganeError

JSON_MARK = '{"event":'
Event = dict[str, Any]


def event_of(line: str) -> Event | None:
    """The event in a line, which another program may have indented; None for everything else that
    programs print."""
    start = line.find(JSON_MARK)
    if start < 0:
        return None
    try:
        return json.loads(line[start:])
    except ValueError:
        return None


def error_of(event: Event) -> HaganeError:
    """What the event `failed` reports, with the exit code of the program that failed."""
    error = HaganeError(*event["problems"])
    error.exit_code = int(event["exit_code"])
    return error


def events_in(lines: Iterable[str]) -> Iterator[Event]:
    """Every event of what a program printed, in order."""
    for line in lines:
        event = event_of(line)
        if event is not None:
            yield event
