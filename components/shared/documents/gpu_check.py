"""What `components.train.gpu_check` is to check: a run's plan, and the settings that its libraries
read.

A pod of `hagane doctor --gpu` gets it as one argument, a folder of a plan on this machine becomes
one.
"""

import json
from pathlib import Path
from typing import Any

from components.shared.documents.fields import FrozenModel
from components.shared.documents.plan import Plan

GPU_S, CPU_S = 120, 300
"""Longest time that all checks of a node may take, on GPUs and on CPUs."""


class CheckRequest(FrozenModel):
    plan: Plan
    deepspeed: dict[str, Any]
    """DeepSpeed's config of the plan: deepspeed.json."""
    training_args: dict[str, Any]
    """Keyword arguments of transformers' TrainingArguments: training_args.json."""

    @property
    def processes_per_node(self) -> int:
        return self.plan.hardware.processes_per_node

    @property
    def num_nodes(self) -> int:
        return self.plan.steps.num_processes // self.processes_per_node


def request_of(folder: Path) -> CheckRequest:
    """The request for the plan in a folder. Reasons and other options are left out: about 4 KB
    stay.

    Raises:
        OSError: a file of the plan is missing.
    """
    plan = Plan.model_validate_json((folder / "plan.json").read_bytes())
    less: dict[str, Any] = {"reasons": {}, "cautions": (), "verdict": "", "time": None}
    less["memory"] = plan.memory.model_copy(update={"options": (), "gpu": (), "host": ()})
    return CheckRequest(plan=plan.model_copy(update=less), **files_of(folder))


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Field of a request -> what the plan's folder has for the library that reads it."""
    return {
        "deepspeed": json.loads((folder / "deepspeed.json").read_bytes()),
        "training_args": json.loads((folder / "training_args.json").read_bytes()),
    }


def for_one_node(request: CheckRequest) -> CheckRequest:
    """The same for one of the plan's nodes."""
    processes = request.processes_per_node
    steps = request.plan.steps.model_copy(update={"num_processes": processes})
    one = request.plan.hardware.model_copy(update={"num_nodes": 1})
    return request.model_copy(
        update={"plan": request.plan.model_copy(update={"steps": steps, "hardware": one})}
    )


def on_cpus(request: CheckRequest) -> CheckRequest:
    """The same for CPUs, which train nothing in fp16."""
    plan = request.plan
    if plan.precision == "fp16":
        precision = "fp32"
    else:
        precision = plan.precision
    memory = plan.memory.model_copy(update={"gpu_limit": None})
    return request.model_copy(
        update={"plan": plan.model_copy(update={"precision": precision, "memory": memory})}
    )
