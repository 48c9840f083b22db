"""Processes that kill themselves (SIGKILL) at the n-th point at which they write: to the disk, to
the network.

Points are Python's own audit events (PEP 578), so that nothing in the program under test knows of
them: files opened for writing, renamed, linked, removed; and every piece that http.client sends.
`torn` is a point inside a file: the kernel kills the process (SIGXFSZ, setrlimit(2)) in the middle
of the first write that makes a file longer than this many bytes.
"""

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate"}


@dataclass(frozen=True)
class Point:
    """Where a process dies: before its n-th write, counted from 1, or in the middle of a file;
    nowhere when all are None."""

    nth: int | None = None
    counted_from: str = ""
    """The write that has this in its path is the first that counts: how many come before may differ
    from run to run."""
    torn_bytes: int | None = None
    longest_file: int | None = None
    """No death: a write that makes a file longer than this many bytes fails, as on a full disk."""


NOWHERE = Point()


@dataclass(frozen=True)
class Child:
    """What a child runs, with what environment. `stdin` and `log` are files."""

    call: Callable[..., object]
    arguments: tuple[Any, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] = ("child",)
    stdin: Path = Path(os.devnull)
    log: Path = Path(os.devnull)
    within: str = ""
    """Only files below this folder count; all that is sent to the network does."""


def server(*modules: str) -> Any:
    """A process in which these are imported and from which children are forked: a child costs its
    own work only."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def start(
    context: Any, child: Child, point: Point = NOWHERE, *, points_file: Path | None = None
) -> Any:
    """The child, started. Every point it passes is a line of `points_file`."""
    process = context.Process(target=_run, args=(child, point, points_file))
    process.start()
    return process


def count_points(context: Any, child: Child, points_file: Path) -> list[str]:
    """Every point of a child that is not killed."""
    process = start(context, child, points_file=points_file)
    process.join()
    assert process.exitcode == 0, child.log.read_text()
    return points_file.read_text().splitlines()


def _run(child: Child, point: Point, points_file: Path | None) -> None:
    os.environ |= child.environment
    sys.argv = list(child.argv)
    log = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    stdin = child.stdin.open()
    os.dup2(stdin.fileno(), 0)
    sys.stdin = stdin
    points = (
        None if points_file is None else os.open(points_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    )
    if point.torn_bytes is not None:
        signal.signal(
            signal.SIGXFSZ, signal.SIG_DFL
        )  # Python ignores it, and gets an error instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (point.torn_bytes, resource.RLIM_INFINITY))
    if point.longest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (point.longest_file, resource.RLIM_INFINITY))
    sys.addaudithook(_hook(point, child.within, points))
    try:
        child.call(*child.arguments)
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(
            end.code if isinstance(end.code, int) else 1
        )  # as the program's own end: gloo's threads would abort a slower one


def _hook(point: Point, within: str, points: int | None) -> Callable[[str, tuple[Any, ...]], None]:
    num_passed = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal num_passed
        if not is_write(event, arguments, within):
            return
        place = _place(arguments)
        if num_passed or point.counted_from in place:
            num_passed += 1
        if points is not None:
            os.write(points, f"{event} {place}\n".encode())
        if num_passed == point.nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def is_write(event: str, arguments: tuple[Any, ...], within: str) -> bool:
    if event == "http.client.send":
        return True
    if event == "open":
        path, mode, flags = arguments
        written = (
            any(letter in mode for letter in "wxa+") if mode else flags & (os.O_WRONLY | os.O_RDWR)
        )
        return (
            bool(written) and isinstance(path, (str, os.PathLike)) and str(path).startswith(within)
        )
    return event in CHANGES and str(arguments[0]).startswith(within)


def _place(arguments: tuple[Any, ...]) -> str:
    first = arguments[0]
    if isinstance(first, (str, os.PathLike)):
        return str(first)
    sent = bytes(arguments[1][:60]) if isinstance(arguments[1], (bytes, bytearray)) else b"body"
    return sent.split(b"\r\n")[0].decode(errors="replace")
