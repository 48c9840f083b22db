"""`python -m benchmarks.model_configs`: a plan or one line for config.json of this year's models, a
Markdown table.

benchmarks/published/model_configs.json holds the shapes of published models, written from their
public config.json (fields that decide nothing here are left out), and how many parameters their
page states; the table has both counts. `--defaults` takes the defaults of transformers' own classes
instead, some of which are no model at all. Types that are counted take no time; any other is built
on the meta device, 5 to 20 s of CPU each.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


FILE = Path(__file__).parent / "published" / "model_configs.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_configs", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these models or types")
    parser.add_argument("--defaults", action="store_true", help="of transformers' classes instead")
    arguments = parser.parse_args()
    published: dict[str, Any] = json.loads(FILE.read_text())
    if arguments.defaults:
        rows = defaults(arguments.names)
    else:
        rows = iter(published.items())
    print("| model | type | parameters, B | counted, B | plan, or why there is none | lines |")
    print("|---|---|---|---|---|---|")
    planned = one_line = 0
    for name, model in rows:
        if arguments.names and not arguments.defaults and name not in arguments.names:
            continue
        counted, lines = outcome(name, model["config"])
        planned += counted is not None
        one_line += counted is None and len(lines) == 1
        if counted is None:
            size = ""
        else:
            size = f"{counted / 1e9:.2f}"
        kind = model["config"]["model_type"]
        print(
            f"| {name} | {kind} | {model['billions']} | {size} | {lines[0]} | {len(lines)} |",
            flush=True,
        )
    print(f"{planned} planned, {one_line} refused in one line")


def defaults(names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Model type -> what its configuration class begins with. Imported here: the published ones
    need no transformers."""
    from transformers import CONFIG_MAPPING

    for name in names or TYPES:
        known = name in CONFIG_MAPPING
        if known:
            text = CONFIG_MAPPING[name]().to_json_string(use_diff=False)
        else:
            text = "{}"
        yield name, {"billions": "", "config": {"model_type": name} | json.loads(text)}


def outcome(name: str, config: dict[str, Any]) -> tuple[int | None, list[str]]:
    """Parameters and verdict, or None and the lines of the refusal."""
    problems = config_problems(config)
    if problems:
        return None, problems
    spec = spec_from_parameter(SPEC | {"model": {"source": name}})
    facts = DatasetFacts(digest="", num_rows=ROWS, num_tokens=ROWS * 2048, model_revision=None)
    try:
        plan = make_plan(spec, facts, config, machine=Machine())
    except HaganeError as error:
        return None, list(error.problems)
    return plan.model.num_parameters, [plan.verdict]


if __name__ == "__main__":
    main()
