"""`python -m benchmarks.plan_speed`: seconds and memory of planning a 70B model, beside DeepSpeed's
estimator and accelerate's.

Each runs in a process of its own; what is reported is after its imports. hagane plans from
config.json; DeepSpeed is given the count of parameters and of the largest layer, which it cannot
find by itself on the meta device; accelerate builds the model on the meta device.
"""

import json
import subprocess
import sys
from pathlib import Path

SPEC = Path("specs/plans/swallow-70b-lora-8x80gb.yaml")
MEASURE = """
import json, resource, sys, time
{imports}
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
{work}
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({{"seconds": time.perf_counter() - start, "mib": used / 1024, "says": says}}))
"""
HAGANE = (
    "from pathlib import Path\n"
    "from components.render_config.planner import DatasetFacts, Machine, make_plan\n"
    "from components.render_config.render.files import rendered_files\n"
    "from components.render_config.page.page import render_page\n"
    "from components.shared.model.source import read_config\n"
    "from components.shared.spec.file import load_spec",
    f"spec = load_spec(Path('{SPEC}'))\nfacts = DatasetFacts(digest='', num_rows=5000, "
    "num_tokens=10_240_000, model_revision=None)\nplan = make_plan(spec, facts, "
    "read_config(Path(spec.model.source)), machine=Machine())\npage = render_page(plan, "
    "rendered_files(spec, plan, hidden_size=8192))\nsays = f'{plan.zero.name}: "
    "{plan.memory.gpu_bytes / 2**30:.1f} GiB a GPU, {plan.memory.host_bytes / 2**30:.1f} GiB "
    "a node'",
)
DEEPSPEED = (
    "from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as three",
    "cpu, gpu, largest = three(69_159_772_160, 353_697_792, 8, 1, False, False, True)\nsays = "
    "f'ZeRO-3: {gpu / 2**30:.1f} GiB a GPU, {cpu / 2**30:.1f} GiB a node, as if every parameter "
    "were trained; no activations'",
)
ACCELERATE = (
    "import torch\n"
    "from accelerate import init_empty_weights\n"
    "from accelerate.utils import calculate_maximum_sizes\n"
    "from transformers import AutoConfig, AutoModelForCausalLM",
    "config = AutoConfig.from_pretrained('specs/models/swallow-70b')\nwith "
    "init_empty_weights():\n    model = AutoModelForCausalLM.from_config(config)\ntotal, largest "
    "= calculate_maximum_sizes(model)\nsays = f'{total / 2**31:.1f} GiB of bf16 weights, x 4 = "
    "{total / 2**29:.1f} GiB to train by Adam; no ZeRO, LoRA, activations, host'",
)


def measured(imports: str, work: str) -> dict[str, float | str]:
    command = [sys.executable, "-W", "ignore", "-c", MEASURE.format(imports=imports, work=work)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    print(
        "| planner | seconds | MiB | what it says of LoRA of a 70B Llama on 8 GPUs of 80 GB "
        "|\n|---|---|---|---|"
    )
    for name, (imports, work) in {
        "hagane": HAGANE,
        "DeepSpeed's estimator": DEEPSPEED,
        "accelerate's": ACCELERATE,
    }.items():
        found = measured(imports, work)
        print(
            f"| {name} | {found['seconds']:.3f} | {found['mib']:.0f} | {found['says']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
