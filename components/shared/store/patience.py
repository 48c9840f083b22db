"""What a step does while the store, the hub or the API server is away: it asks again, up to a
deadline.

Only a process that says so waits (`waits`): a step of a pipeline does, a command that a person sits
in front of does not. Bad input is never asked again; the caller says which errors may pass.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

Answer = TypeVar("Answer")
DEADLINE_S = 600.0
"""How long one question is asked again. A store that is started anew, a failover and a rolling
update of an API server take minutes; the shortest step may run for an hour."""
LONGEST_PAUSE_S = 15.0
_log: Any = None


@contextmanager
def waits(log: structlog.typing.FilteringBoundLogger) -> Iterator[None]:
    """Inside, `patiently` asks again and says so in the log."""
    global _log  # noqa: PLW0603 - like the log's set-up, this is a matter of the whole process
    before, _log = _log, log
    try:
        yield
    finally:
        _log = before


@contextmanager
def waits_no_more(when: bool) -> Iterator[None]:
    """Inside, if `when`, `patiently` asks once: for what is done after the wait was in vain."""
    global _log  # noqa: PLW0603 - like the log's set-up, this is a matter of the whole process
    before = _log
    if when:
        _log = None
    try:
        yield
    finally:
        _log = before


def is_patient() -> bool:
    """Whether this process waits for what is away."""
    return _log is not None


def patiently(
    call: Callable[[], Answer],
    *,
    what: str,
    may_pass: Callable[[BaseException], bool],
    deadline_s: float | None = None,
    otherwise_s: float = 0.0,
) -> Answer:
    """What the call returns. While it raises what may pass, it is made again after random, growing
    pauses: for `deadline_s` (DEADLINE_S) in a process that waits, elsewhere for `otherwise_s`.

    Raises what the last call raised.
    """
    allowed_s = otherwise_s
    if _log is not None:
        if deadline_s is None:
            allowed_s = DEADLINE_S
        else:
            allowed_s = deadline_s
    if allowed_s == 0.0:
        return call()
    retrying = Retrying(
        retry=retry_if_exception(may_pass),
        wait=wait_random_exponential(multiplier=1, max=LONGEST_PAUSE_S),
        stop=stop_after_delay(allowed_s),
        before_sleep=partial(_say, _log, what, time.monotonic()),
        reraise=True,
    )
    return retrying(call)


def _say(log: Any, what: str, begun: float, state: RetryCallState) -> None:
    if log is None:
        return
    assert state.outcome is not None
    assert state.next_action is not None
    found = str(state.outcome.exception()).partition("\n")[0]
    waited_s = round(time.monotonic() - begun)
    pause_s = round(state.next_action.sleep, 1)
    log.warning("waiting", what=what, found=found, waited_s=waited_s, pause_s=pause_s)
