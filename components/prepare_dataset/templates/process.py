"""A chat template is rendered in a process of its own, within limits that also hold while it is
compiled.

Jinja computes constants such as `{{ 9**9**9 }}` as it compiles, and C code that multiplies a text
cannot be stopped from Python. So the kernel stops the process: by RLIMIT_CPU and RLIMIT_AS,
setrlimit(2). One process serves all conversations of a template, and a batch of them goes to it in
one message. To start it costs 0.2 s.

The process (program.py) gets pickled values of builtin types. It answers in JSON and text: nothing
that it says is executed here.
"""

import io
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from components.prepare_dataset.records.conversations import Conversation, Message
from components.prepare_dataset.samples.samples import Sample
from components.prepare_dataset.templates.chat_template import MOST_CHARACTERS
from components.shared.errors import DataError

MOST_TEMPLATE_BYTES = 1_048_576

_BATCH_BYTES = 1_048_576
_BATCH_CONVERSATIONS = 1000
_LENGTH_BYTES = 8
_READ_BYTES = 1_048_576
_FIX = (
    "Fix: correct a copy of the template and name it in data.chat_template, or shorten the record"
)

Request = tuple[Any, ...]
"""What is asked for, and its arguments; all of builtin types."""


@dataclass(frozen=True)
class Limits:
    cpu_s: int = 5
    """Processor time for the samples of one conversation. Those of usual templates take 0.0002
    s."""
    memory_mib: int = 1024
    """What the process may use beside the interpreter: 16 times the largest text."""
    silence_s: float = 300.0
    """The longest wait for an answer, for a process that gets no processor."""

    def __str__(self) -> str:
        return (
            f"allowed for one conversation are {self.cpu_s} s of processor time, {self.memory_mib} "
            f"MiB of memory and {MOST_CHARACTERS:,} characters"
        )


@dataclass(eq=False)
class BoundedTemplate:
    """A template that is rendered by a process of its own, which is started when it is first
    needed."""

    name: str
    """For messages: the file it was read from."""
    text: str
    special_tokens: Mapping[str, str]
    """bos_token, eos_token and the like, as the template may name them."""
    now: datetime
    """What strftime_now gives: one moment for all conversations."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """`data.template_args`."""
    limits: Limits = Limits()
    _running: "_Process | None" = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _has_rendered: bool = field(default=False, init=False, repr=False)
    """Whether a conversation came through: the first goes alone, so that a template which none
    comes through is tried with it only."""

    def samples(
        self, conversations: Sequence[Conversation], end_tokens: tuple[str, ...]
    ) -> list[tuple[Sample, ...] | DataError]:
        """For each conversation what `samples_of` returns or raises, in order.

        Raises:
            DataError: the text is no template, or a conversation needs more than the limits allow.
        """
        requests = (
            ("samples", end_tokens, _plain(each.messages), each.tools) for each in conversations
        )
        answers = self._answers(requests, [each.where for each in conversations])
        return [_samples(answer) for answer in answers]

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of the turns. Raises DataError when the template refuses them, fails, or needs
        more than the limits allow."""
        request = ("render", add_generation_prompt, _plain(messages), tools)
        (answer,) = self._answers([request], ["the turns"])
        if "problems" in answer:
            raise DataError(*answer["problems"])
        return answer["text"]

    def compile(self) -> None:
        """The process is ready. Raises DataError where the text is no Jinja template, or one that
        needs more than the limits allow."""
        self._answers([], [])

    def _answers(self, requests: Iterable[Request], places: Sequence[str]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        with self._lock:
            self._started()
            for batch in _batches(
                requests, first=_BATCH_CONVERSATIONS if self._has_rendered else 1
            ):
                answers += self._answers_to(batch, places[len(answers) :])
                self._has_rendered = True
        return answers

    def _answers_to(self, batch: list[bytes], places: Sequence[str]) -> list[dict[str, Any]]:
        """One batch. Where the process ends in the middle of one, each request is sent alone, which
        shows the one that needs too much."""
        if len(batch) == 1:
            return self._started().answers(batch, places)
        try:
            return self._started().answers(batch, places)
        except _Ended:
            return [
                self._started().answers([request], [place])[0]
                for request, place in zip(batch, places, strict=False)
            ]

    def _started(self) -> "_Process":
        """This process's own: one that was forked starts another."""
        running = self._running
        if running is None or running.has_ended or running.started_by != os.getpid():
            running = _Process(self.name, self.limits)
            first: Request = (
                "compile",
                self.name,
                self.text,
                dict(self.special_tokens),
                self.now,
                dict(self.arguments),
            )
            size = len(self.text.encode("utf-8", "surrogatepass"))
            if size > MOST_TEMPLATE_BYTES:
                raise DataError(
                    f"{self.name}: found a chat template of {size:,} bytes, allowed are "
                    f"{MOST_TEMPLATE_BYTES:,}"
                )
            (answer,) = running.answers([pickle.dumps(first)], ["it, compiled"])
            if "problems" in answer:
                raise DataError(*answer["problems"])
            self._running = running
        return running

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


class _Ended(DataError):
    """The process ended without an answer."""


class _Process:
    def __init__(self, template_name: str, limits: Limits) -> None:
        self.started_by = os.getpid()
        self._template_name = template_name
        self._limits = limits
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "components.prepare_dataset.templates.program",
                str(limits.cpu_s),
                str(limits.memory_mib),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            bufsize=0,
        )
        self._close = weakref.finalize(self, _end, self._process, self.started_by)

    @property
    def has_ended(self) -> bool:
        return not self._close.alive

    def answers(self, requests: list[bytes], places: Sequence[str]) -> list[dict[str, Any]]:
        """An answer to each request.

        Raises:
            DataError: a request needs more than the limits allow. _Ended: the process ended, at one
                of the requests.
        """
        self._send(b"".join(requests))
        try:
            length = int.from_bytes(self._read(_LENGTH_BYTES), "big")
            answers = _answers_in(self._read(length))
        except EOFError:
            raise self._ended(places[0]) from None
        except TimeoutError:
            self._close()
            raise _Ended(
                self._line(
                    places[0], f": the process gave no answer for {self._limits.silence_s:.0f} s"
                )
            ) from None
        needs = answers[-1].get("needs")
        if needs is not None:
            self._close()
            raise self._over_limit(places[len(answers) - 1], needs)
        return answers

    def _send(self, message: bytes) -> None:
        """The process has the message, or has ended: then its answer is missing."""
        pipe = self._process.stdin
        assert pipe is not None
        rest = memoryview(len(message).to_bytes(_LENGTH_BYTES, "big") + message)
        with suppress(BrokenPipeError):
            while rest:
                rest = rest[pipe.write(rest) :]

    def _read(self, num_bytes: int) -> bytearray:
        """Raises EOFError where the process has ended, TimeoutError where it is silent."""
        pipe = self._process.stdout
        assert pipe is not None
        found = bytearray()
        while len(found) < num_bytes:
            if not select.select([pipe], [], [], self._limits.silence_s)[0]:
                raise TimeoutError
            received = os.read(pipe.fileno(), min(_READ_BYTES, num_bytes - len(found)))
            if not received:
                raise EOFError
            found += received
        return found

    def _ended(self, place: str) -> _Ended:
        why = self._why_ended()
        self._close()
        if self._process.returncode == -signal.SIGXCPU:
            return self._over_limit(place, f"more than {self._limits.cpu_s} s of processor time")
        return _Ended(self._line(place, f": the process {why}"))

    def _over_limit(self, place: str, needs: str) -> _Ended:
        return _Ended(self._line(place, f" needs {needs}; {self._limits}"))

    def _line(self, place: str, what: str) -> str:
        return f"{self._template_name}: rendering {place}{what}. {_FIX}"

    def _why_ended(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        assert self._process.stderr is not None
        lines = self._process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f"ended with exit code {code}: {lines[-1] if lines else 'it said nothing'}"


def _end(process: "subprocess.Popen[bytes]", started_by: int) -> None:
    """The process is gone, and its pipes are closed; a process that was forked leaves it to the one
    that started it."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()
    if started_by == os.getpid():
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """Where Python finds these modules, and nothing else: no keys of a store or a hub."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
    }
    modules = Path(__file__).resolve().parents[3]
    return {**kept, "PYTHONPATH": str(modules), "PYTHONDONTWRITEBYTECODE": "1"}


def _batches(requests: Iterable[Request], *, first: int) -> Iterator[list[bytes]]:
    """`first`: most requests of the first batch."""
    batch: list[bytes] = []
    size, most = 0, first
    for request in requests:
        batch.append(pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL))
        size += len(batch[-1])
        if size >= _BATCH_BYTES or len(batch) == most:
            yield batch
            batch, size, most = [], 0, _BATCH_CONVERSATIONS
    if batch:
        yield batch


def _plain(messages: Sequence[Message]) -> list[tuple[Any, ...]]:
    return [(each.role, each.content, each.trained, each.fields) for each in messages]


def _answers_in(content: bytearray) -> list[dict[str, Any]]:
    """The answers of a message whose form program.py names, samples with their texts."""
    stream = io.BytesIO(content)
    head = json.loads(stream.read(int.from_bytes(stream.read(_LENGTH_BYTES), "big")))
    texts = (stream.read(size).decode("utf-8", "surrogatepass") for size in head["num_bytes"])
    for answer in head["answers"]:
        if "samples" in answer:
            answer["samples"] = [(next(texts), *sample) for sample in answer["samples"]]
    return head["answers"]


def _samples(answer: dict[str, Any]) -> tuple[Sample, ...] | DataError:
    if "problems" in answer:
        return DataError(*answer["problems"])
    return tuple(
        Sample(text, tuple((start, end) for start, end in spans), frozenset(notes))
        for text, spans, notes in answer["samples"]
    )
