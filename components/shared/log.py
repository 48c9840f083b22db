"""One event a line on stdout: `key=value` for people, JSON for the process that started this one
(HAGANE_LOG=json)."""

import logging
import os
import sys
from collections import deque
from typing import Any

import structlog

_RECENT: deque[str] = deque(maxlen=40)
_FOR_PEOPLE: Any = structlog.processors.LogfmtRenderer(
    key_order=["event", "component"], bool_as_flag=False
)


def set_up_log(component: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of a component's process. A line begins with `event`, then `component`, then what
    the event carries."""
    _RECENT.clear()
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False, separators=(",", ":"))
        if os.environ.get("HAGANE_LOG") == "json"
        else _FOR_PEOPLE
    )
    structlog.configure(
        processors=[structlog.processors.add_log_level, _event_first, _kept, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
    )
    return structlog.get_logger(component=component)


def recent_lines() -> tuple[str, ...]:
    """The last lines of this process's log, oldest first, as people read them."""
    return tuple(_RECENT)


def _event_first(_: Any, __: str, event: Any) -> Any:
    return {"event": event.pop("event"), "component": event.pop("component"), **event}


def _kept(logger: Any, name: str, event: Any) -> Any:
    _RECENT.append(_FOR_PEOPLE(logger, name, dict(event)))
    return event
