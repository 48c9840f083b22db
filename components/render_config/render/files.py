"""Spec + plan -> the files that the training libraries read, and why each value is so. Every value
is resolved; none is left as "auto"."""

from collections.abc import Mapping
from typing import Any

from components.render_config.decision import Decision
from components.render_config.render.deepspeed import deepspeed
from components.render_config.render.training_args import Values, training_args
from components.shared.documents.plan import LoraPlan, Plan
from components.shared.spec.run_spec import RunSpec
from components.shared.tree import nested

LORA = {
    "r": "lora.rank",
    "lora_alpha": "lora.alpha",
    "use_rslora": "lora.rslora",
    "use_dora": "lora.dora",
    "lora_dropout": "lora.dropout",
    "target_modules": "lora.target_modules",
    "target_parameters": "lora.target_parameters",
    "exclude_modules": "lora.exclude_modules: these end like a target and are none",
    "fan_in_fan_out": "lora.fan_in_fan_out",
    "bias": "biases stay frozen: an adapter of matrices alone can be merged and served",
    "task_type": "what PEFT calls a model that writes on",
}
"""Argument of PEFT's LoraConfig -> why it is so: the values are the plan's own (`peft_config`)."""


def file_values(spec: RunSpec, plan: Plan, *, hidden_size: int) -> dict[str, Values]:
    """Name, without its ending, of each file that the training libraries read -> its values."""
    files = {
        "deepspeed": deepspeed(spec, plan, hidden_size=hidden_size),
        "training_args": training_args(spec, plan),
    }
    if plan.lora is not None:
        arguments = plan.lora.peft_config
        files["lora"] = {name: Decision(arguments[name], LORA[name]) for name in arguments}
    return files


def file_reasons(files: Mapping[str, Values]) -> dict[str, str]:
    """`files.<file>.<field>` -> why, for every value."""
    return {
        f"files.{name}.{field}": decision.reason
        for name, values in files.items()
        for field, decision in values.items()
    }


def rendered_files(spec: RunSpec, plan: Plan, *, hidden_size: int) -> dict[str, dict[str, Any]]:
    """Name, without its ending, -> content of each file that the training libraries read."""
    files = file_values(spec, plan, hidden_size=hidden_size)
    return {name: _content(values) for name, values in files.items()}


def _content(values: Values) -> dict[str, Any]:
    return nested({field: decision.value for field, decision in values.items()})


def deepspeed_json(spec: RunSpec, plan: Plan, *, hidden_size: int) -> dict[str, Any]:
    return _content(deepspeed(spec, plan, hidden_size=hidden_size))


def training_args_json(spec: RunSpec, plan: Plan) -> dict[str, Any]:
    return _content(training_args(spec, plan))


def lora_json(lora: LoraPlan) -> dict[str, Any]:
    """Keyword arguments of PEFT's LoraConfig."""
    return lora.peft_config


def lifecycle_json(spec: RunSpec) -> dict[str, Any] | None:
    """A bucket's lifecycle rule for the run (S3 API, PutBucketLifecycleConfiguration): uploads that
    a killed machine left open, which cost money and are in no listing, are dropped after a day.
    None for a store that is no bucket."""
    if not spec.store.startswith("s3://"):
        return None
    _, _, prefix = spec.run_uri.removeprefix("s3://").partition("/")
    return {
        "Rules": [
            {
                "ID": f"hagane-{spec.name}-unfinished-uploads",
                "Filter": {"Prefix": f"{prefix}/"},
                "Status": "Enabled",
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
            }
        ]
    }
