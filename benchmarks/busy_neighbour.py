"""`make bench-neighbour`: a training step whose threads wait for each other in different ways,
alone and beside other work on the machine.

A small Llama of random weights in bf16, two threads. Each way has a process of its own; they take
turns, and the others sleep meanwhile. Compare the ways of one line by their ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.small_runs import SHAPES
from components.shared.job.threads import SPINS

WAYS: dict[str, dict[str, str]] = {
    "OpenMP's own": {},
    "hagane's": {"GOMP_SPINCOUNT": SPINS},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
VOCABULARY = 4000
ROW_TOKENS = 64
STEPS_OF_A_TURN = 5
NEIGHBOURS = (0, 1, 2)


def train(model: str) -> None:
    """A turn of steps for each line on stdin; prints the seconds of one."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, **SHAPES[model])
    trained = LlamaForCausalLM(config).to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.AdamW(trained.parameters())
    tokens = torch.randint(0, VOCABULARY, (1, ROW_TOKENS))
    for _ in ("to warm up\n", *sys.stdin):
        start = time.perf_counter()
        for _ in range(STEPS_OF_A_TURN):
            trained(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print((time.perf_counter() - start) / STEPS_OF_A_TURN, flush=True)


def started(model: str, settings: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.busy_neighbour", "--train", model]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **settings}
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def turn(training: "subprocess.Popen[str]") -> float:
    assert training.stdin is not None
    assert training.stdout is not None
    training.stdin.write("\n")
    training.stdin.flush()
    return float(training.stdout.readline())


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes compute while the block runs."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", metavar="MODEL", choices=SHAPES, help="what a process does")
    parser.add_argument("--model", choices=SHAPES, default="llama-4M")
    parser.add_argument("--turns", type=int, default=7, help="of each way; the median is printed")
    asked = parser.parse_args()
    if asked.train:
        train(asked.train)
        return
    with ExitStack() as ends:
        trainings = {way: started(asked.model, settings) for way, settings in WAYS.items()}
        for training in trainings.values():
            ends.callback(training.communicate)
            assert training.stdout is not None
            training.stdout.readline()
        for count in NEIGHBOURS:
            print_line(count, trainings, asked.turns)


def print_line(count: int, trainings: "dict[str, subprocess.Popen[str]]", num_turns: int) -> None:
    seconds: dict[str, list[float]] = {way: [] for way in trainings}
    with busy(count):
        for _ in range(num_turns):
            for way, training in trainings.items():
                seconds[way].append(turn(training))
    milliseconds = {way: round(1e3 * statistics.median(each), 1) for way, each in seconds.items()}
    line = {"neighbours": count, "load": os.getloadavg()[0], "ms_of_a_step": milliseconds}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
