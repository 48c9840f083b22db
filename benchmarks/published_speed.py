"""`python -m benchmarks.published_speed`: the plan's time of a step beside what others measured on
GPUs.

benchmarks/published/step_seconds.csv holds one published run a line, with its source. Nothing is
run here. The models are written from their public shapes, as config.json of the nearest counted
family.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.render_config.choose.steps import Batching, plan_steps
from components.render_config.cost.hardware import Machine, hardware_of
from components.render_config.cost.timing import StepTime, step_time
from components.render_config.model.architectures import architecture_of
from components.render_config.model.targets import lora_targets
from components.render_config.setting import Rows, Setting
from components.shared.documents.plan import ZeroPlan
from components.shared.spec.file import spec_from_parameter

FILE = Path(__file__).parent / "published" / "step_seconds.csv"
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

    @property
    def ratio(self) -> float:
        return self.planned.seconds / self.measured

    @property
    def is_in_range(self) -> bool:
        return self.planned.low <= self.measured <= self.planned.high


def planned_step(run: Mapping[str, str]) -> StepTime:
    """What the plan says of the run's step."""
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
    step = step_time(setting, zero, steps)
    assert step is not None
    return step


def _setting(run: Mapping[str, str]) -> Setting:
    """As a spec of the run would be planned: full rows, bf16."""
    architecture, row_tokens = architecture_of(config_of(run["model"])), int(run["row_tokens"])
    network = float(run["network_gbit_s"]) if run["network_gbit_s"] else None
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


def comparisons() -> Iterator[Comparison]:
    with FILE.open(encoding="utf-8", newline="") as lines:
        for run in csv.DictReader(lines):
            yield Comparison(run, float(run["seconds_per_step"]), planned_step(run))


def main() -> None:
    compared = list(comparisons())
    print(
        f"{'model':9} {'method':6} {'GPUs':14} {'tokens':>6} {'measured':>9} {'planned':>9} "
        f"{'range':>16}  ratio"
    )
    for each in compared:
        run, step = each.run, each.planned
        gpus = f"{int(run['num_nodes']) * int(run['gpus_per_node'])} {run['gpu']}"
        bounds = f"{step.low:.2f} to {step.high:.2f}"
        note = "" if each.is_in_range else "  outside the range"
        print(
            f"{run['model']:9} {run['method']:6} {gpus:14} {run['row_tokens']:>6} "
            f"{each.measured:9.2f} {step.seconds:9.2f} {bounds:>16}  {each.ratio:.2f}{note}"
        )
    inside = sum(each.is_in_range for each in compared)
    near = sum(abs(each.ratio - 1) <= 0.2 for each in compared)
    print(f"{inside} of {len(compared)} in the plan's range, {near} within 20 %")


if __name__ == "__main__":
    main()
