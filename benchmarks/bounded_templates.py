"""Prints what it costs that a chat template is rendered by a process of its own, within limits: processor time and seconds beside those
of the same work in this process, for rendering alone and for rendering and tokenising, which is what prepare_dataset does.

    python -m benchmarks.bounded_templates [--mb 20] [--rounds 3]

Both ways take turns within each round; what is printed is the median round. The process's start, 0.2 s, is in it.
"""

import argparse
import gc
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from benchmarks.chat_data import CHATML, make_tokenizer, write_chats
from components.prepare_dataset.records.conversations import Conversation, Message
from components.prepare_dataset.samples.in_processes import MOST_CONVERSATIONS
from components.prepare_dataset.samples.samples import Sample, samples_of
from components.prepare_dataset.samples.tokens import Encoder, encode, load_encoder, rendered
from components.prepare_dataset.templates.chat_template import ChatTemplate, compile_template
from components.prepare_dataset.templates.process import BoundedTemplate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Chunks = list[list[Conversation]]
Work = Callable[[Encoder, Sequence[Conversation]], object]


@dataclass(frozen=True)
class Unbounded:
    """The same template in this process, with the part of BoundedTemplate that prepare_dataset asks for."""

    name: str
    special_tokens: dict[str, str]
    compiled: ChatTemplate

    def samples(self, conversations: Sequence[Conversation], end_tokens: tuple[str, ...]) -> list[tuple[Sample, ...]]:
        return [samples_of(self.compiled, each, end_tokens) for each in conversations]


@dataclass(frozen=True)
class Taken:
    cpu_s: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounded_templates", description=__doc__)
    parser.add_argument("--mb", type=int, default=20, help="size of the data, in MB")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tokenizer(folder / "model")
        write_chats(folder / "chats.jsonl", arguments.mb * 1_000_000)
        encoder = load_encoder(folder / "model", "model", now=NOW)
        chunks = chunks_of(folder / "chats.jsonl")
    print(f"{arguments.mb} MB, {sum(map(len, chunks)):,} conversations, {arguments.rounds} rounds")
    for what, work in (("rendering", rendered), ("rendering and tokenising", encode)):
        print(line(what, [compared(encoder, work, chunks) for _ in range(arguments.rounds)]), flush=True)


def chunks_of(file: Path) -> Chunks:
    """As prepare_dataset makes them."""
    conversations: list[Conversation] = []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        messages = tuple(Message(each["role"], each["content"], each["role"] == "assistant") for each in json.loads(text)["messages"])
        conversations.append(Conversation(f"{file.name}:{number}", messages, b""))
    return [conversations[start : start + MOST_CONVERSATIONS] for start in range(0, len(conversations), MOST_CONVERSATIONS)]


def compared(encoder: Encoder, work: Work, chunks: Chunks) -> tuple[Taken, Taken]:
    """In a process of its own, and in this one."""
    tokens = dict(encoder.template.special_tokens)
    bounded = taken(lambda: replace(encoder, template=BoundedTemplate("t", CHATML, tokens, NOW)), work, chunks)
    inside = Unbounded("t", tokens, compile_template("t", CHATML, tokens, now=NOW))
    return bounded, taken(lambda: replace(encoder, template=cast(Any, inside)), work, chunks)


def taken(make: Callable[[], Encoder], work: Work, chunks: Chunks) -> Taken:
    gc.collect()
    cpu_s, seconds = _cpu_s(), time.perf_counter()
    encoder = make()
    for chunk in chunks:
        work(encoder, chunk)
    del encoder
    gc.collect()  # the template's process has ended, so that its time is counted
    return Taken(_cpu_s() - cpu_s, time.perf_counter() - seconds)


def _cpu_s() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def line(what: str, rounds: list[tuple[Taken, Taken]]) -> str:
    cpu = [statistics.median(way.cpu_s for way in ways) for ways in zip(*rounds, strict=True)]
    seconds = [statistics.median(way.seconds for way in ways) for ways in zip(*rounds, strict=True)]
    ratios = [statistics.median(a.cpu_s / b.cpu_s for a, b in rounds), statistics.median(a.seconds / b.seconds for a, b in rounds)]
    return (
        f"{what:26} processor time {cpu[0]:.2f} s with limits, {cpu[1]:.2f} s without: {ratios[0]:.2f}x;  "
        f"seconds {seconds[0]:.2f}, {seconds[1]:.2f}: {ratios[1]:.2f}x"
    )


if __name__ == "__main__":
    main()
