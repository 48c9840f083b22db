"""`python -m benchmarks.cpu_adam`: AdamW's step on the host, DeepSpeed's compiled one and torch's
fused one, on the same numbers.

Under offload a process updates one flat fp32 tensor on its cores and then copies it to the
training's 16 bits. Both are timed, by turns, on equal tensors, and their weights are compared at
the end. DeepSpeed's operator is compiled first: that needs g++.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam

BETAS, EPS, LR, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 1e-4, 0.01
BYTES_PER_PARAMETER = 28
"""Read: weight, gradient and two moments in fp32; written: all but the gradient."""


@dataclass(frozen=True)
class Contestant:
    name: str
    weights: torch.nn.Parameter
    low: torch.Tensor
    """The weights in bf16."""
    optimizer: torch.optim.Optimizer


def contestant(
    name: str, start: torch.Tensor, build: Callable[..., torch.optim.Optimizer]
) -> Contestant:
    weights = torch.nn.Parameter(start.clone())
    optimizer = build([weights], lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    return Contestant(name, weights, torch.empty_like(start, dtype=torch.bfloat16), optimizer)


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def fused(weights: list[torch.nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, fused=True, **settings)


def compiled(weights: list[torch.nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    return DeepSpeedCPUAdam(weights, adamw_mode=True, **settings)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.cpu_adam", description=__doc__)
    parser.add_argument("--parameters", type=float, default=100e6, help="of the process's share")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(int(options.parameters), generator=generator)
    both = [
        contestant("DeepSpeed's compiled CPU Adam", start, compiled),
        contestant("torch's fused AdamW", start, fused),
    ]
    print(
        "| threads | optimizer | s a step, median | best | GB/s of Adam's 28 B, median | s to copy "
        "to bf16 |\n|---|---|---|---|---|---|"
    )
    for num_threads in sorted(set(options.threads)):
        torch.set_num_threads(num_threads)
        print_rows(num_threads, both, options.steps, generator)
    first, second = (each.weights.detach() for each in both)
    moved = (first - start).abs().mean()
    print(
        f"\nweights moved by {moved:.3g} on average and differ by at most "
        f"{(first - second).abs().max():.3g}"
    )


def print_rows(
    num_threads: int, both: list[Contestant], num_steps: int, generator: torch.Generator
) -> None:
    """A row of the table for each, after one step that is not timed, and how their medians
    compare."""
    steps: dict[str, list[float]] = {each.name: [] for each in both}
    copies: dict[str, list[float]] = {each.name: [] for each in both}
    gradient = torch.empty_like(both[0].weights.detach())
    for number in range(num_steps + 1):
        gradient.normal_(generator=generator)
        for each in both if number % 2 else reversed(both):  # whoever is first finds colder caches
            each.weights.grad = gradient
            took = seconds_of(each.optimizer.step)
            copied = seconds_of(lambda each=each: each.low.copy_(each.weights.detach()))
            if number:
                steps[each.name].append(took)
                copies[each.name].append(copied)
    for name, took in steps.items():
        median = statistics.median(took)
        rate = BYTES_PER_PARAMETER * gradient.numel() / median / 1e9
        print(
            f"| {num_threads} | {name} | {median:.3f} | {min(took):.3f} | {rate:.1f} | "
            f"{statistics.median(copies[name]):.3f} |"
        )
    theirs, torchs = (statistics.median(took) for took in steps.values())
    print(f"| {num_threads} | DeepSpeed's / torch's | {theirs / torchs:.2f} | | | |")


if __name__ == "__main__":
    main()
