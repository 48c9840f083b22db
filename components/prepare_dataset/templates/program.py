"""The process that renders a chat template: requests of process.py on stdin, the answers
on stdout.

A message is its length in 8 bytes, and one pickled request after another. What comes back is its
length in 8 bytes, that of its JSON in 8 bytes, the JSON, and the texts of all samples in UTF-8, one
behind the other: `{"answers": […], "num_bytes": […]}` has the answers, each sample without its
text, and the number of bytes of each text. The limits are set before the first request. The process
ends at a request that needs more than they allow.
"""

import json
import os
import pickle
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from components.prepare_dataset.records.conversations import Conversation, Message
from components.prepare_dataset.samples.samples import samples_of
from components.prepare_dataset.templates.chat_template import (
    ChatTemplate,
    TooMuchText,
    compile_template,
)
from components.shared.errors import DataError
from components.shared.processes import end_with_parent

_LENGTH_BYTES = 8
_MIB = 2**20

Answer = dict[str, Any]
Turns = list[tuple[Any, ...]]
"""The fields of each Message."""


def main() -> None:
    cpu_s, memory_mib = int(sys.argv[1]), int(sys.argv[2])
    end_with_parent()
    _limit_memory_and_files(memory_mib)
    renderer = _Renderer()
    for message in _messages():
        answers: list[Answer] = []
        needs = ""
        try:
            for request in _requests(message):
                _limit_processor_time(cpu_s)
                answers.append(renderer.answer(*request))
        except TooMuchText as error:
            needs = str(error)
        except MemoryError:
            needs = f"more than {memory_mib} MiB of memory"
        if needs:
            answers.append({"needs": needs})
        _write(answers)
        if needs:
            return


class _Renderer:
    _template: ChatTemplate

    def answer(self, kind: str, *arguments: Any) -> Answer:
        """Raises TooMuchText, MemoryError: the request needs more than the limits allow."""
        try:
            return {"compile": self._compile, "render": self._render, "samples": self._samples}[
                kind
            ](*arguments)
        except DataError as error:
            return {"problems": error.problems}

    def _compile(
        self,
        name: str,
        text: str,
        special_tokens: dict[str, str],
        now: datetime,
        arguments: dict[str, Any],
    ) -> Answer:
        self._template = compile_template(name, text, special_tokens, now=now, arguments=arguments)
        return {}

    def _render(self, add_generation_prompt: bool, turns: Turns, tools: Any) -> Answer:
        messages = [Message(*turn) for turn in turns]
        return {
            "text": self._template.render(
                messages, tools=tools, add_generation_prompt=add_generation_prompt
            )
        }

    def _samples(self, end_tokens: tuple[str, ...], turns: Turns, tools: Any) -> Answer:
        messages = tuple(Message(*turn) for turn in turns)
        samples = samples_of(self._template, Conversation("", messages, b"", tools), end_tokens)
        return {
            "samples": [(each.spans, sorted(each.notes)) for each in samples],
            "texts": [each.text for each in samples],
        }


def _messages() -> Iterator[bytes]:
    """Until the process that started this one closes the pipe."""
    stdin = sys.stdin.buffer
    while length := stdin.read(_LENGTH_BYTES):
        yield stdin.read(int.from_bytes(length, "big"))


def _requests(message: bytes) -> Iterator[tuple[Any, ...]]:
    rest = BytesIO(message)
    while rest.tell() < len(message):
        yield pickle.load(rest)  # noqa: S301 - written by the process that started this one


def _write(answers: list[Answer]) -> None:
    texts = [
        text.encode("utf-8", "surrogatepass")
        for answer in answers
        for text in answer.pop("texts", ())
    ]
    head = json.dumps({"answers": answers, "num_bytes": list(map(len, texts))}).encode()
    content = b"".join((len(head).to_bytes(_LENGTH_BYTES, "big"), head, *texts))
    rest = memoryview(len(content).to_bytes(_LENGTH_BYTES, "big") + content)
    while rest:
        rest = rest[os.write(1, rest) :]


def _limit_memory_and_files(memory_mib: int) -> None:
    """Memory is limited, no file can be written, and but for root no process can be started from
    here."""
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, _address_space() + memory_mib * _MIB),
    ):
        _, hard = resource.getrlimit(limit)
        if hard == resource.RLIM_INFINITY:
            allowed = most
        else:
            allowed = min(most, hard)
        with suppress(
            *() if sys.platform == "linux" else (ValueError,)
        ):  # macOS does not take every limit
            resource.setrlimit(limit, (allowed, allowed))


def _address_space() -> int:
    """Bytes in use now; where there is no /proc, what Python 3.11 uses on Linux."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return 256 * _MIB
    return int(statm.read_text().split()[0]) * resource.getpagesize()


def _limit_processor_time(cpu_s: int) -> None:
    """From now on. The kernel ends the process by SIGXCPU, also inside of C code; it counts whole
    seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(usage.ru_utime + usage.ru_stime) + 1 + cpu_s
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


if __name__ == "__main__":
    main()
