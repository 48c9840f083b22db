"""`python -m benchmarks.output_layer`: a training step with logits of trained tokens alone, beside one with whole logits.

A model of SmolLM2-135M's shape with random weights, rows of 2 x 448 tokens of which two thirds are trained. The two ways take turns
in one process for the time; each has a process of its own for the memory, which is what the step adds to the model's.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from components.render_config.output_layer import CPU_TOKENS
from components.train.output_layer import OutputLayer, mean_loss
from components.train.rows import NOT_TRAINED

SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 49_152, "tie_word_embeddings": True, "pad_token_id": 0,
}  # fmt: skip
ROWS, TOKENS, ROUNDS = 2, 448, 5
WAYS = ("whole", "trained")


def small_step(method: str, dtype: torch.dtype) -> Callable[[str], float]:
    """A step of training by one of WAYS; returns its loss."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE), dtype=dtype)
    if method == "lora":
        config = LoraConfig(r=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
        model = get_peft_model(model, config)
    labels_BT = torch.randint(3, SHAPE["vocab_size"], (ROWS, TOKENS))
    ids_BT = labels_BT.clone()
    labels_BT[:, ::3] = NOT_TRAINED
    layer = OutputLayer(model, chunk_tokens=CPU_TOKENS if method == "lora" else 4 * CPU_TOKENS)

    def step(way: str) -> float:
        model.zero_grad(set_to_none=True)
        if way == "whole":
            loss = model(input_ids=ids_BT, labels=labels_BT, use_cache=False).loss
        else:
            with layer.losses_of(labels_BT):
                loss = mean_loss(model(input_ids=ids_BT, use_cache=False), labels_BT)
        loss.backward()
        return loss.item()

    return step


def timed(method: str, dtype: torch.dtype) -> dict[str, Any]:
    step = small_step(method, dtype)
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    losses = {way: step(way) for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            start = time.perf_counter()
            step(way)
            took[way].append(time.perf_counter() - start)
    return {"seconds": {way: statistics.median(each) for way, each in took.items()}, "losses": losses}


def peak_mib(method: str, dtype: str, way: str) -> float:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.output_layer", method, dtype, way]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def measure_peak(method: str, dtype: torch.dtype, way: str) -> float:
    """MiB that two steps add to the process's peak."""
    step = small_step(method, dtype)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step(way)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if len(sys.argv) > 1:
        method, dtype, way = sys.argv[1:]
        print(measure_peak(method, dtypes[dtype], way))
        return
    print(f"{ROWS} rows of {TOKENS} tokens, {torch.get_num_threads()} threads; median of {ROUNDS} steps of each way in turn")
    print("| method | format | whole, s | trained, s | faster | whole, MiB | trained, MiB | loss whole | loss trained |")
    print("|---|---|---|---|---|---|---|---|---|")
    for method in ("lora", "full"):
        for name, dtype in dtypes.items():
            made = timed(method, dtype)
            whole, trained = (made["seconds"][way] for way in WAYS)
            peaks = [peak_mib(method, name, way) for way in WAYS]
            losses = [f"{made['losses'][way]:.6f}" for way in WAYS]
            cells = [method, name, f"{whole:.2f}", f"{trained:.2f}", f"{whole / trained:.2f}x"]
            print("| " + " | ".join([*cells, *(f"{peak:.0f}" for peak in peaks), *losses]) + " |", flush=True)


if __name__ == "__main__":
    main()
