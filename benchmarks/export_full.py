"""`python -m benchmarks.export_full [--small] [FOLDER]`: export of a fully trained model of 1.1 B
parameters, beside DeepSpeed's zero_to_fp32; with `--small` of 125 M, on any laptop.

The checkpoint is made, not trained: two ZeRO-2 shards as DeepSpeed writes them, with fp32 master
weights and without the moments, which neither program reads. Each program runs in a process of its
own; `anonymous` is the memory it cannot give back, sampled every 50 ms, `peak` has mapped files
too. hagane fetches the shards from a store, checks them, and writes a model that loads;
zero_to_fp32 writes fp32 weights.
"""

import argparse
import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.render_config.planner import DatasetFacts, Machine, make_plan
from components.shared.model.source import read_config
from components.shared.spec.file import parse_spec
from components.shared.store.layout import checkpoint_folder
from components.shared.store.manifest import publish_folder
from components.shared.store.storage import LocalStore

SHAPE = {
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
"""TinyLlama's: 1,100,048,384 parameters."""
SMALL = {
    **SHAPE,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
"""124,668,672 parameters."""
PROCESSES, STEP = 2, "global_step10"
MEASURE = """
import json, re, sys, threading, time
from pathlib import Path
{imports}
def status(name): return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
most, ended = [0], threading.Event()
def sample():
    while not ended.wait(0.05):
        most[0] = max(most[0], status("RssAnon"))
watcher = threading.Thread(target=sample, daemon=True)
before, start = status("RssAnon"), time.perf_counter()
watcher.start()
{work}
seconds = time.perf_counter() - start
ended.set()
print(json.dumps({{"seconds": seconds, "anonymous": most[0] - before, "peak": status("VmHWM")}}))
"""  # noqa: E501
HAGANE = (
    "from components.export_adapter.weights.full import write_model\n"
    "from components.shared.store.checkpoints import committed_checkpoints\n"
    "from components.shared.store.storage import LocalStore",
    "store = LocalStore(Path(sys.argv[1], 'store'))\n"
    "(local := Path(sys.argv[1], 'model')).mkdir()\n"
    "base, scratch = Path(sys.argv[1], 'base'), Path(sys.argv[1], 'scratch')\n"
    "write_model(store, committed_checkpoints(store)[-1], base=base, scratch=scratch, local=local)",
)
DEEPSPEED = (
    (
        "from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict as "
        "convert"
    ),
    (
        "convert(str(Path(sys.argv[1], 'store/checkpoints/epoch-0001/a')), str(Path(sys.argv[1], "
        "'fp32')), safe_serialization=True)"
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_full", description=__doc__)
    parser.add_argument("--small", action="store_true", help="125 M parameters.")
    parser.add_argument("folder", nargs="?", help="Where temporary files go.")
    asked = parser.parse_args()
    with TemporaryDirectory(dir=asked.folder) as folder:
        work = Path(folder)
        num_parameters = make_base(work / "base", SMALL if asked.small else SHAPE)
        make_checkpoint(work)
        print(
            f"{num_parameters:,} parameters in bf16; plan: "
            f"{planned_bytes(work / 'base') / 2**30:.2f} GiB for export and its verification"
        )
        for name, program in (("hagane", HAGANE), ("zero_to_fp32", DEEPSPEED)):
            found = measured(program, work)
            anonymous, peak = found["anonymous"] / 2**30, found["peak"] / 2**30
            print(
                f"{name:13} {found['seconds']:6.1f} s   anonymous {anonymous:5.2f} GiB   peak "
                f"{peak:5.2f} GiB"
            )


def make_base(folder: Path, shape: dict[str, Any]) -> int:
    """A random model in bf16. Returns its number of parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **shape), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    return model.num_parameters()


def make_checkpoint(work: Path) -> None:
    """Epoch 1 is committed in the store: the base's weights and a little more, divided among two
    processes."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(work / "base/model.safetensors")
    shapes = OrderedDict((name, tensor.shape) for name, tensor in weights.items())
    shards = work / "written/a" / STEP
    shards.mkdir(parents=True)
    # One fp32 copy, 4.4 GB: a machine of 16 GB makes the checkpoint too.
    flat = torch.empty(sum(sizes(weights)))
    for tensor, place in zip(weights.values(), flat.split(sizes(weights)), strict=True):
        place.copy_(tensor.flatten())
    flat.add_(1e-3)
    for rank, part in enumerate(flat.chunk(PROCESSES)):
        state = {
            "zero_stage": 2,
            "partition_count": PROCESSES,
            "single_partition_of_fp32_groups": [part.clone()],
        }
        torch.save(
            {"optimizer_state_dict": state, "ds_version": "0.19.8"},
            shards / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt",
        )
    model = {
        "module": {},
        "buffer_names": [],
        "param_shapes": [shapes],
        "shared_params": {},
        "ds_version": "0.19.8",
    }
    torch.save(model, shards / "mp_rank_00_model_states.pt")
    (work / "written/a/latest").write_text(STEP)
    facts = {
        "epoch": 1,
        "step": 10,
        "num_processes": PROCESSES,
        "zero_stage": 2,
        "loss": 1.0,
        "held_out_loss": 1.0,
        "steps_per_epoch": 10,
        "micro_batch": 1,
    }
    publish_folder(
        LocalStore(work / "store"),
        checkpoint_folder(1),
        work / "written",
        made_by="benchmark",
        inputs={},
        facts=facts,
    )


def sizes(weights: dict[str, Any]) -> list[int]:
    return [tensor.numel() for tensor in weights.values()]


def planned_bytes(base: Path) -> int:
    tree = {
        "name": "full",
        "store": "s",
        "model": {"source": str(base)},
        "data": {"train": "t.jsonl"},
    }
    spec = parse_spec(
        {
            **tree,
            "training": {"method": "full"},
            "hardware": {"gpu": "a100-80gb", "processes_per_node": PROCESSES},
        }
    )
    facts = DatasetFacts(digest="", num_rows=1000, num_tokens=1_000_000, model_revision=None)
    plan = make_plan(spec, facts, read_config(base), machine=Machine())
    return plan.after.export_bytes


def measured(program: tuple[str, str], work: Path) -> dict[str, Any]:
    """Seconds and bytes of the program, its imports left out."""
    code = MEASURE.format(imports=program[0], work=program[1])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(work)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
