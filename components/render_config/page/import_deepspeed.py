"""A hand-written deepspeed.json -> what is wrong in it, what each setting means, and what hagane's
plan would write instead.

Text goes in, lines come out. A comma that is missing or one too many is reported with its line,
repaired, and read on.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from components.shared.errors import SpecError
from components.shared.printable import is_secret_name, public
from components.shared.tree import leaves

Tree = dict[str, Any]

# What each setting does (deepspeed.ai/docs/config-json, DeepSpeed 0.19), and the spec's field for
# it where there is one.
MEANINGS: dict[str, str] = {
    "train_batch_size": "rows per optimizer step over all processes; spec: training.global_batch",
    "train_micro_batch_size_per_gpu": (
        "rows per process in one forward pass; spec: training.micro_batch"
    ),
    "gradient_accumulation_steps": (
        "forward passes per optimizer step; follows from the two batch sizes"
    ),
    "gradient_clipping": "largest norm of the gradient; spec: training.clip_norm",
    "steps_per_print": "how often DeepSpeed prints; hagane logs each step itself",
    "wall_clock_breakdown": (
        "DeepSpeed prints times of forward, backward and step; it waits for the device each time"
    ),
    "bf16.enabled": "forward and backward pass in bf16; spec: training.precision",
    "fp16.enabled": (
        "forward and backward pass in fp16 with a scaled loss; spec: training.precision, auto "
        "takes it on GPUs without bf16"
    ),
    "fp16.loss_scale": "0 means that the scale is found while training",
    "fp16.loss_scale_window": "steps without an overflow after which the scale of the loss doubles",
    "fp16.initial_scale_power": "the scale of the loss begins at 2 to this power",
    "fp16.hysteresis": "overflows that pass before the scale of the loss is halved",
    "fp16.min_loss_scale": "the least scale of the loss",
    "optimizer.params.betas": "Adam's decay of the two moments; hagane keeps (0.9, 0.999)",
    "optimizer.params.eps": "Adam's smallest denominator; hagane keeps 1e-8",
    "scheduler.params.warmup_min_lr": (
        "learning rate of the first step; hagane's warm-up starts with one part of the peak"
    ),
    "scheduler.params.warmup_max_lr": "learning rate after the warm-up; spec: training.lr_peak",
    "scheduler.params.total_num_steps": (
        "steps after which the learning rate is 0; follows from rows and epochs"
    ),
    "optimizer.type": "which optimizer DeepSpeed makes; hagane gives it torch's fused AdamW",
    "optimizer.params.lr": "learning rate; spec: training.lr_peak",
    "optimizer.params.weight_decay": "decoupled weight decay; spec: training.weight_decay",
    "scheduler.type": "learning rate over time; spec: training.lr_schedule",
    "scheduler.params.warmup_num_steps": "steps of warm-up; spec: training.warmup_share",
    "zero_optimization.stage": (
        "what is divided among processes: 1 optimizer state, 2 also gradients, 3 also parameters; "
        "spec: zero.stage"
    ),
    "zero_optimization.offload_optimizer.device": (
        "where optimizer state lives; spec: zero.offload_optimizer"
    ),
    "zero_optimization.offload_optimizer.pin_memory": (
        "page-locked host memory: faster copies, rounded up to powers of two"
    ),
    "zero_optimization.offload_param.device": (
        "where parameters live between uses; spec: zero.offload_parameters"
    ),
    "zero_optimization.offload_param.pin_memory": (
        "page-locked host memory: faster copies, rounded up to powers of two"
    ),
    "zero_optimization.overlap_comm": "communication beside the backward pass, for a second bucket",
    "zero_optimization.contiguous_gradients": (
        "gradients are copied into one buffer as they come, which avoids fragmentation"
    ),
    "zero_optimization.sub_group_size": "parameters updated at once by the optimizer",
    "zero_optimization.reduce_bucket_size": (
        "numbers in one reduction of gradients: memory for fewer, larger messages"
    ),
    "zero_optimization.allgather_bucket_size": "numbers in one gathering of updated weights",
    "zero_optimization.reduce_scatter": "each process gets only its own share of the gradients",
    "zero_optimization.allgather_partitions": (
        "updated weights are gathered at once, not sent one by one"
    ),
    "zero_optimization.stage3_prefetch_bucket_size": "numbers gathered ahead of their use",
    "zero_optimization.stage3_param_persistence_threshold": (
        "weights smaller than this stay whole on every process"
    ),
    "zero_optimization.stage3_max_live_parameters": (
        "gathered parameters that are kept for their next use at most"
    ),
    "zero_optimization.stage3_max_reuse_distance": (
        "parameters used again within this many others are not let go"
    ),
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": (
        "whole weights gathered at each save; hagane exports from shards"
    ),
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": (
        "old name of stage3_gather_16bit_weights_on_model_save"
    ),
    "zero_force_ds_cpu_optimizer": (
        "insist on DeepSpeed's own Adam for offload, which needs a compiler at run time"
    ),
    "activation_checkpointing": (
        "DeepSpeed's own; spec: training.gradient_checkpointing uses transformers'"
    ),
}


@dataclass(frozen=True)
class Imported:
    problems: tuple[str, ...]
    """What is no JSON, with line and column; repaired for reading on."""
    settings: Tree
    """Dotted name -> value."""


def read_deepspeed(text: str, name: str) -> Imported:
    """Raises SpecError when the text cannot be repaired by commas."""
    problems: list[str] = []
    for _ in range(20):
        try:
            tree = json.loads(text)
        except json.JSONDecodeError as error:
            repaired = _repaired(text, error)
            if repaired is None:
                reported = (
                    f"{name}:{error.lineno}:{error.colno}: not JSON: {error.msg}; repair it by hand"
                )
                raise SpecError(*problems, reported) from None
            problem, text = repaired
            problems.append(f"{name}:{problem}")
        else:
            if not isinstance(tree, dict):
                raise SpecError(f"{name}: found {type(tree).__name__}, must be a JSON object")
            return Imported(tuple(problems), dict(leaves(tree, empty_too=True)))
    raise SpecError(*problems, f"{name}: more is wrong; write it anew")


def _repaired(text: str, error: json.JSONDecodeError) -> tuple[str, str] | None:
    """The place and kind of a wrong comma, and the text without that mistake."""
    before = text[: error.pos].rstrip()
    if "Expecting ',' delimiter" in error.msg:
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return f"{line}:{column}: a comma is missing after {before[-1]!r}", before + "," + text[
            len(before) :
        ]
    trailing = re.search(r",\s*$", text[: error.pos]) or re.match(r",\s*[}\]]", text[error.pos :])
    if trailing is not None:
        at = text.rfind(",", 0, error.pos + 1)
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        return f"{line}:{column}: a comma too many, before what ends here", text[:at] + text[
            at + 1 :
        ]
    return None


def explained_deepspeed(imported: Imported, planned: Tree | None) -> list[str]:
    """A line for each setting: what it is, what it means, and what the plan writes for it; then
    what only the plan writes.

    `planned` is the plan's deepspeed.json, or None where no spec is given.
    """
    if planned is not None:
        ours = dict(leaves(planned, empty_too=True))
    else:
        ours = {}
    lines: list[str] = []
    for key, value in imported.settings.items():
        meaning = MEANINGS.get(key) or MEANINGS.get(
            key.partition(".")[0], "not known here; DeepSpeed may not know it either"
        )
        lines.append(
            f"{key} = {_public(key, value)}: "
            f"{meaning}{_change(key, value, ours, given=planned is not None)}"
        )
    if planned is not None:
        missing = (
            f"{key} = {_json(value)}" for key, value in ours.items() if key not in imported.settings
        )
        lines += [f"the plan also sets {line}" for line in missing]
    return lines


def _change(key: str, value: Any, ours: Tree, *, given: bool) -> str:
    if value == "auto":
        resolved = '; "auto" is left for transformers to fill in, the plan leaves none'
    else:
        resolved = ""
    if not given:
        return resolved
    if key not in ours:
        return f"{resolved}; the plan leaves it out"
    if ours[key] != value:
        return f"{resolved}; the plan: {_json(ours[key])}"
    return "; the plan keeps it"


def _public(key: str, value: Any) -> str:
    """As JSON, without secrets: sections such as `comet` have keys to a service."""
    if is_secret_name(key):
        return '"***"'
    return _json(public(value))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
