"""`make bench-layers`: a training step with hagane's output layer and attention, beside the model's
own.

A model of SmolLM2-135M's shape with random weights; packed rows, of whose tokens two thirds are
trained. The ways take turns in one process for the time; each has a process of its own for the
memory, which is what its steps add to the model's.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.small_runs import SHAPES, SMOLLM2
from components.render_config.choose.output_layer import CPU_TOKENS
from components.train.loop.rows import NOT_TRAINED, Batch, Row, collate, inputs_of
from components.train.model.attention import ConversationAttention
from components.train.model.output_layer import OutputLayer, mean_loss
from components.train.model.own_layers import OwnLayers

SHAPE = SHAPES[SMOLLM2]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TOKENS_OF_A_STEP = 2048
ROW_TOKENS = (512, 1024, 2048)
CONVERSATIONS = (96, 160, 64, 288, 128, 224)
"""Tokens of a row's conversations, again and again until it is full."""
ROUNDS = 5
WAYS = ("model's own", "output layer", "both")


@dataclass(frozen=True)
class Case:
    method: str
    dtype: str
    row_tokens: int


def batch_of(row_tokens: int) -> Batch:
    torch.manual_seed(0)
    batch = collate([row_of(row_tokens) for _ in range(TOKENS_OF_A_STEP // row_tokens)])
    batch["labels"][:, ::3] = NOT_TRAINED
    return batch


def row_of(row_tokens: int) -> Row:
    lengths: list[int] = []
    for length in cycle(CONVERSATIONS):
        left = row_tokens - sum(lengths)
        if not left:
            break
        lengths.append(min(length, left))
    tokens = torch.randint(3, SHAPE["vocab_size"], (row_tokens,)).tolist()
    return {"input_ids": tokens, "labels": tokens, "lengths": lengths}


def step_of(case: Case) -> Callable[[str], float]:
    """A forward and a backward pass by one of WAYS; returns its loss."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **SHAPE), dtype=DTYPES[case.dtype]
    )
    if case.method == "lora":
        model = get_peft_model(model, LoraConfig(r=16, target_modules=LINEAR))
    batch = batch_of(case.row_tokens)
    if case.method == "lora":
        chunk_tokens = CPU_TOKENS
    else:
        chunk_tokens = 4 * CPU_TOKENS
    layer, attention = OutputLayer(model, chunk_tokens=chunk_tokens), ConversationAttention(model)

    def one_pass(own: OwnLayers) -> Any:
        inputs = inputs_of(batch, torch.device("cpu"))
        if own.output_layer is None:
            return model(**inputs, labels=batch["labels"], use_cache=False).loss
        with own.losses_of(batch):
            return mean_loss(model(**inputs, use_cache=False), batch["labels"])

    def step(way: str) -> float:
        model.zero_grad(set_to_none=True)
        if way == "both":
            own = OwnLayers(layer, attention)
            with own.rows_of(batch):
                loss = one_pass(own)
                loss.backward()
            return loss.item()
        with attention.left_out():
            loss = one_pass(OwnLayers(layer if way == "output layer" else None))
            loss.backward()
        return loss.item()

    return step


def timed(case: Case) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of a step, and the loss, of each way."""
    step = step_of(case)
    losses = {way: step(way) for way in WAYS}
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            start = time.perf_counter()
            step(way)
            took[way].append(time.perf_counter() - start)
    return {way: statistics.median(each) for way, each in took.items()}, losses


def peak_mib(case: Case, way: str) -> float:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.own_layers",
        case.method,
        case.dtype,
        str(case.row_tokens),
        way,
    ]
    return json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )


def measure_peak(case: Case, way: str) -> float:
    """MiB that two steps add to the process's peak."""
    step = step_of(case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step(way)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    if len(sys.argv) > 1:
        method, dtype, row_tokens, way = sys.argv[1:]
        print(measure_peak(Case(method, dtype, int(row_tokens)), way))
        return
    threads = torch.get_num_threads()
    print(
        f"{TOKENS_OF_A_STEP} tokens a step, {threads} threads; median of {ROUNDS} steps of each "
        "way in turn"
    )
    columns = [f"{way}, {unit}" for unit in ("tokens/s", "MiB", "loss") for way in WAYS]
    print("| method | format | row | " + " | ".join(columns) + " | faster | memory |")
    print("|" + "---|" * (len(columns) + 5))
    for method in ("lora", "full"):
        for dtype in DTYPES:
            for row_tokens in ROW_TOKENS:
                print(line_of(Case(method, dtype, row_tokens)), flush=True)


def line_of(case: Case) -> str:
    seconds, losses = timed(case)
    peaks = {way: peak_mib(case, way) for way in WAYS}
    own, both = WAYS[0], WAYS[-1]
    cells = [case.method, case.dtype, str(case.row_tokens)]
    cells += [f"{TOKENS_OF_A_STEP / seconds[way]:.0f}" for way in WAYS]
    cells += [f"{peaks[way]:.0f}" for way in WAYS]
    cells += [f"{losses[way]:.5f}" for way in WAYS]
    cells += [f"{seconds[own] / seconds[both]:.2f}x", f"{peaks[both] / peaks[own]:.2f}x"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
