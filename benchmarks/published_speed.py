"""`python -m benchmarks.published_speed`: the plan's time of a step and memory of a GPU beside what
others measured on GPUs.

benchmarks/published/step_seconds.csv holds one published run a line, with its source; `memory_gb`
is of all GPUs together, in GB (1e9 bytes), as its source writes: 162.0 GiB would be more than the
two GPUs of that run have. Were it nvidia-smi's MiB by 1000, ratios of memory would be 5 % lower.
Nothing is run here. The models are written from their public shapes, as config.json of the nearest
counted family.
"""

import csv
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.render_config.choose.steps import Batching, plan_steps
from components.render_config.cost.hardware import Machine, hardware_of
from components.render_config.cost.memory import memory
from components.render_config.cost.timing import StepTime, step_time
from components.render_config.model.architectures import architecture_of
from components.render_config.model.targets import lora_targets
from components.render_config.setting import Rows, Setting
from components.shared.documents.plan import StepPlan, ZeroPlan
from components.shared.spec.file import spec_from_parameter

FILE = Path(__file__).parent / "published" / "step_seconds.csv"
NOT_FITTED = FILE.with_name("not_fitted.csv")
"""Runs that no figure of the plan was fitted to. Neither their network nor their ZeRO stage is
published: 100 Gbit/s and 2, that of their script, are taken."""
# blocks, hidden size, heads
MPT = {
    "1b": (24, 2048, 16),
    "3b": (32, 2560, 20),
    "7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
    "30b": (48, 7168, 56),
    "70b": (80, 8192, 64),
}
# blocks, hidden size, heads, size of the MLP
QWEN = {
    "1.8b": (24, 2048, 16, 5504),
    "7b": (32, 4096, 32, 11008),
    "14b": (40, 5120, 40, 13696),
    "72b": (80, 8192, 64, 24576),
}
SHORT = 1024
"""Tokens of a row: below, launching kernels takes a large part of a step."""
WIDEST = 2.0
"""A range that is wider says little."""
RANK = 64
"""Of the LoRA runs in Qwen's table."""


def config_of(model: str) -> dict[str, Any]:
    """The model's shape: MPT as GPT-NeoX, which has the same blocks; Qwen as Llama."""
    family, _, size = model.partition("-")
    if family == "mpt":
        blocks, hidden, heads = MPT[size]
        mlp, shape = (
            4 * hidden,
            {"model_type": "gpt_neox", "vocab_size": 50368, "tie_word_embeddings": True},
        )
    else:
        blocks, hidden, heads, mlp = QWEN[size]
        shape = {"model_type": "llama", "vocab_size": 151936}
    return shape | {
        "num_hidden_layers": blocks,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
    }


@dataclass(frozen=True)
class Comparison:
    """One published run, in seconds of an optimizer step."""

    run: Mapping[str, str]
    measured: float
    planned: StepTime
    memory_ratio: float | None
    """Planned memory of a GPU by the published one; None where none was published."""

    @property
    def ratio(self) -> float:
        return self.planned.seconds / self.measured

    @property
    def width(self) -> float:
        """The upper end of the range by the lower one."""
        return self.planned.high / self.planned.low

    @property
    def is_in_range(self) -> bool:
        return self.planned.low <= self.measured <= self.planned.high


@dataclass(frozen=True)
class PlannedWork:
    """A published run as the plan sees it."""

    setting: Setting
    zero: ZeroPlan
    steps: StepPlan

    @property
    def gpu_bytes(self) -> int:
        """Of one GPU."""
        return memory(self.setting, self.zero, self.steps.micro_batch).gpu_bytes


def planned_work(run: Mapping[str, str]) -> PlannedWork:
    setting = _setting(run)
    micro_batch = int(run["micro_batch"])
    batching = Batching(
        num_processes=setting.num_processes,
        micro_batch=micro_batch,
        grad_accum=int(run["grad_accum"]),
        epochs=1,
    )
    steps = plan_steps(
        batching.global_batch,
        batching,
        warmup_share=0,
        num_tokens=batching.global_batch * setting.rows.most_tokens,
    )
    zero = ZeroPlan(stage=int(run["zero_stage"]))  # pyright: ignore[reportArgumentType]
    return PlannedWork(setting, zero, steps)


def _setting(run: Mapping[str, str]) -> Setting:
    """As a spec of the run would be planned: full rows, bf16."""
    architecture, row_tokens = architecture_of(config_of(run["model"])), int(run["row_tokens"])
    if run["network_gbit_s"]:
        network = float(run["network_gbit_s"])
    else:
        network = None
    spec = spec_from_parameter(
        {
            "name": "run",
            "store": "s3://b/r",
            "model": {"source": "m"},
            "data": {"train": "s3://b/d", "row_tokens": row_tokens},
            "training": {
                "method": run["method"],
                "gradient_checkpointing": run["gradient_checkpointing"] == "true",
            },
            "lora": {"rank": RANK},
            "hardware": {
                "gpu": run["gpu"],
                "num_nodes": int(run["num_nodes"]),
                "processes_per_node": int(run["gpus_per_node"]),
                "network_gbit_s": network,
            },
        }
    )
    return Setting(
        spec=spec,
        architecture=architecture,
        targets=lora_targets("auto", architecture),
        hardware=hardware_of(spec.hardware, Machine()),
        precision="bf16",
        rows=Rows(True, row_tokens, row_tokens, float(row_tokens)),
    )


def comparisons(file: Path = FILE) -> Iterator[Comparison]:
    with file.open(encoding="utf-8", newline="") as lines:
        for run in csv.DictReader(lines):
            yield compared(run)


def compared(run: Mapping[str, str]) -> Comparison:
    work = planned_work(run)
    step, published = step_time(work.setting, work.zero, work.steps), run["memory_gb"]
    assert step is not None
    ratio = None
    if published:
        gpus = work.setting.num_processes
        ratio = work.gpu_bytes / (float(published) * 1e9 / gpus)
    return Comparison(run, float(run["seconds_per_step"]), step, ratio)


def main() -> None:
    for file in (FILE, NOT_FITTED):
        print(f"{file.name}:")
        _print(list(comparisons(file)))


def _print(found: list[Comparison]) -> None:
    print(
        f"{'model':9} {'method':6} {'GPUs':14} {'tokens':>6} {'measured':>9} {'planned':>9} "
        f"{'range':>16}  ratio  memory"
    )
    for each in found:
        print(_line(each))
    print(*summary(found), sep="\n")


def _line(each: Comparison) -> str:
    run, step = each.run, each.planned
    gpus = f"{int(run['num_nodes']) * int(run['gpus_per_node'])} {run['gpu']}"
    bounds = f"{step.low:.2f} to {step.high:.2f}"
    if each.memory_ratio is None:
        memory_ratio = ""
    else:
        memory_ratio = f"{each.memory_ratio:.2f}"
    if each.is_in_range:
        note = ""
    else:
        note = "  outside the range"
    return (
        f"{run['model']:9} {run['method']:6} {gpus:14} {run['row_tokens']:>6} "
        f"{each.measured:9.2f} {step.seconds:9.2f} {bounds:>16}  {each.ratio:5.2f}  "
        f"{memory_ratio:>6}{note}"
    )


def summary(found: list[Comparison]) -> list[str]:
    """Shares of time and memory, then the time of each group of runs."""
    inside = [each for each in found if each.is_in_range]
    near = sum(abs(each.ratio - 1) <= 0.2 for each in found)
    narrow = sum(each.width <= WIDEST for each in inside)
    ratios = [each.memory_ratio for each in found if each.memory_ratio is not None]
    tenth, fifth = (sum(abs(each - 1) <= share for each in ratios) for share in (0.1, 0.2))
    lines = [
        f"{len(inside)} of {len(found)} in the plan's range, {near} within 20 %; its width: median "
        f"{statistics.median(each.width for each in found):.2f}x, {narrow} in a range of at most "
        f"{WIDEST:.0f}x",
        f"memory: {tenth} of {len(ratios)} within 10 %, {fifth} within 20 %, median ratio "
        f"{statistics.median(ratios):.2f}",
    ]
    for name, group in groups(found).items():
        widths = statistics.median(each.width for each in group)
        ratio = statistics.median(each.ratio for each in group)
        within = sum(each.is_in_range for each in group)
        lines.append(
            f"  {name}: {within} of {len(group)} in range, median width {widths:.2f}x, median "
            f"ratio {ratio:.2f}"
        )
    return lines


def groups(found: list[Comparison]) -> dict[str, list[Comparison]]:
    """Runs of one collection, method, GPU, and rows of at most SHORT tokens or more."""
    made: dict[str, list[Comparison]] = {}
    for each in found:
        run = each.run
        if int(run["row_tokens"]) <= SHORT:
            rows = "short rows"
        else:
            rows = "long rows"
        family = run["model"].partition("-")[0]
        made.setdefault(f"{family} {run['method']}, {run['gpu']}, {rows}", []).append(each)
    return made


if __name__ == "__main__":
    main()
