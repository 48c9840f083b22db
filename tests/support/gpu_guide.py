"""docs/reference/gpu-guide.md: which GPUs a model needs, from plans made for each row."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.shared.documents.plan import Plan
from components.shared.errors import HaganeError
from components.shared.spec.file import parse_spec
from tests.support.example_plans import ROOT

ROW_TOKENS, NUM_ROWS, GLOBAL_BATCH = 2048, 5000, 32
COUNTS = (1, 2, 4, 8, 16)
MOST_ON_A_NODE = 8
NODE_GIB = 1000
GPUS = ("rtx4090", "a100-80gb", "h100-80gb")
QWEN2_32B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_hidden_layers": 64,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
}
"""config.json of Qwen2.5-32B."""
MODELS = (
    ("1.5B", "tinyswallow-1.5b"),
    ("7B", "elyza-7b"),
    ("13B", "llm-jp-13b-v1"),
    ("32B", "Qwen2.5-32B"),
    ("70B", "swallow-70b"),
)


@dataclass(frozen=True)
class Choice:
    count: int
    plan: Plan


def config_of(name: str) -> dict[str, Any]:
    if name == "Qwen2.5-32B":
        return QWEN2_32B
    return json.loads((ROOT / "specs" / "models" / name / "config.json").read_text())


def fewest(name: str, method: str, gpu: str, *, offload: str) -> Choice | None:
    """The fewest GPUs for which hagane plans; None where 16 are too few. `offload`: `auto`, or
    `none` for GPU memory alone."""
    for count in COUNTS:
        spec = parse_spec(
            {
                "name": "guide",
                "store": "s3://bucket/runs",
                "model": {"source": f"org/{name}"},
                "data": {"train": "s3://bucket/train.jsonl", "row_tokens": ROW_TOKENS},
                "training": {
                    "method": method,
                    "epochs": 1,
                    "global_batch": GLOBAL_BATCH,
                    "gradient_checkpointing": True,
                },
                "zero": {"offload_optimizer": offload, "offload_parameters": offload},
                "hardware": {
                    "gpu": gpu,
                    "num_nodes": max(1, count // MOST_ON_A_NODE),
                    "processes_per_node": min(count, MOST_ON_A_NODE),
                    "host_memory_gib": NODE_GIB,
                },
            }
        )
        tokens = NUM_ROWS * ROW_TOKENS
        facts = DatasetFacts(digest="", num_rows=NUM_ROWS, num_tokens=tokens, model_revision=None)
        try:
            return Choice(count, make_plan(spec, facts, config_of(name), machine=Machine()))
        except HaganeError:
            continue
    return None


def _cell(choice: Choice | None) -> str:
    if choice is None:
        return f"more than {COUNTS[-1]}"
    verdict = choice.plan.verdict
    hours = verdict.rpartition("in about ")[2].partition(" (")[0]
    return f"{choice.count}: {choice.plan.zero.name}, {hours}"


def _table(offload: str) -> Iterator[str]:
    yield f"| model | method | {' | '.join(GPUS)} |"
    yield "|---|---|" + "---|" * len(GPUS)
    for size, name in MODELS:
        for method in ("lora", "full"):
            cells = [_cell(fewest(name, method, gpu, offload=offload)) for gpu in GPUS]
            yield f"| {size} ({name}) | {method} | {' | '.join(cells)} |"


def guide() -> str:
    lines = [
        "# GPU guide",
        "",
        f"Written by `make golden` from plans, not from runs: {NUM_ROWS:,} full rows of "
        f"{ROW_TOKENS:,} tokens, one epoch, global batch {GLOBAL_BATCH}, activation checkpointing, "
        f"nodes of up to {MOST_ON_A_NODE} GPUs and {NODE_GIB} GiB of host memory. Each cell: the "
        f"fewest GPUs of {', '.join(map(str, COUNTS))} that fit with 10 % to spare, what hagane "
        "chooses for them, and the planned time. hagane was never run on a GPU; how far such times "
        "were from 83 published runs: [planning](../planning.md).",
        "",
        "## In GPU memory alone",
        "",
        *_table("none"),
        "",
        "## With offload to host memory",
        "",
        *_table("auto"),
        "",
        "Fewer GPUs than these do not fit. More are faster. For your model and data: "
        "`hagane plan spec.yaml --rows 5000`.",
    ]
    return "\n".join(lines) + "\n"
