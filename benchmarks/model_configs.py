"""`python -m benchmarks.model_configs`: a plan or one line for configurations of this year's model
types, as a Markdown table.

The configurations are the defaults of transformers' own classes, which for most types are the
shapes of the first published model; some are smaller. Types that are counted take no time; any
other is built on the meta device, 5 to 20 s of CPU each.
"""

import json
import sys
from typing import Any

from transformers import CONFIG_MAPPING

from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.shared.errors import HaganeError
from components.shared.model.folder import config_problems
from components.shared.spec.file import spec_from_parameter

TYPES = (
    *("apertus", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe", "exaone4", "falcon_h1"),
    *("gemma3", "gemma3n", "gemma4", "glm4_moe", "gpt_oss", "granitemoehybrid", "hunyuan_v1_moe"),
    *("lfm2", "llama4", "longcat_flash", "minimax_m2", "ministral3", "mistral4", "nemotron_h"),
    *("olmo3", "phi3", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5", "qwen3_5_moe", "seed_oss"),
    *("smollm3", "internvl", "mistral3", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v"),
)
SPEC: dict[str, Any] = {
    "name": "models",
    "store": "runs",
    "data": {"train": "d.jsonl", "row_tokens": 2048},
    "lora": {"dropout": 0.0},
    "training": {"global_batch": 32, "gradient_checkpointing": True},
    "hardware": {"gpu": "b200", "processes_per_node": 8, "host_memory_gib": 4000},
}
ROWS = 5000


def main() -> None:
    print("| model type | plan, or why there is none | lines |\n|---|---|---|")
    for name in sys.argv[1:] or TYPES:
        lines = outcome(name)
        print(f"| {name} | {lines[0]} | {len(lines)} |", flush=True)


def outcome(name: str) -> list[str]:
    """The verdict, or the lines of the refusal."""
    if name not in CONFIG_MAPPING:
        return [f"transformers has no type {name}"]
    config = json.loads(CONFIG_MAPPING[name]().to_json_string(use_diff=False))
    problems = config_problems(config)
    if problems:
        return problems
    spec = spec_from_parameter(SPEC | {"model": {"source": name}})
    facts = DatasetFacts(digest="", num_rows=ROWS, num_tokens=ROWS * 2048, model_revision=None)
    try:
        return [make_plan(spec, facts, config, machine=Machine()).verdict]
    except HaganeError as error:
        return list(error.problems)


if __name__ == "__main__":
    main()
