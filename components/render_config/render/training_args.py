"""Spec + plan -> training_args.json: keyword arguments of transformers' TrainingArguments, each
with its reason, but for what only a worker knows: its folders and its device.

A reason that is a bare name is the field of spec or plan that the value follows.
"""

import math
from typing import Any

from components.render_config.decision import Decision
from components.shared.documents.plan import Plan
from components.shared.job.trainer_settings import TRAINER_SETTINGS
from components.shared.spec.run_spec import RunSpec
from components.shared.spec.training import TrainingSpec

Values = dict[str, Decision[Any]]
"""Of a file that a training library reads: dotted field -> value and reason."""
SHARED = "the same in deepspeed.json and training_args.json, or transformers refuses"
ORDER_OF_ROWS = "training.seed: the order of rows does not hang on what else draws numbers"
WHY_SETTINGS = {
    "save_strategy": "steps.save_steps: a checkpoint at the end of each epoch",
    "logging_strategy": "a line each step, so that history.json holds every loss",
    "logging_steps": "a line each step, so that history.json holds every loss",
    "logging_nan_inf_filter": (
        "a loss that is no number is reported as such; transformers would log 0 or the mean in its "
        "place"
    ),
    "report_to": "hagane's own log and report; no other service gets anything",
    "disable_tqdm": "progress is one event a step in the log",
    "remove_unused_columns": "rows bring position_ids, which keep packed conversations apart",
    "dataloader_num_workers": (
        "rows are tokenised already and lie in memory: a worker process would cost more than it "
        "saves"
    ),
}
"""Of TRAINER_SETTINGS, which are the same in every plan."""


def training_args(spec: RunSpec, plan: Plan) -> Values:
    training, steps = spec.training, plan.steps
    if training.max_steps is None:
        max_steps = -1
    else:
        max_steps = steps.total_steps
    return {
        "per_device_train_batch_size": Decision(steps.micro_batch, "steps.micro_batch"),
        "gradient_accumulation_steps": Decision(steps.grad_accum, "steps.grad_accum"),
        "num_train_epochs": Decision(training.epochs, "training.epochs"),
        "max_steps": Decision(max_steps, "training.max_steps; -1 is none"),
        "dataloader_drop_last": Decision(training.drop_last, "training.drop_last"),
        "learning_rate": Decision(plan.learning_rate, "learning_rate"),
        "lr_scheduler_type": Decision(training.lr_schedule, "training.lr_schedule"),
        "warmup_steps": Decision(steps.warmup_steps, "steps.warmup_steps"),
        **_schedule(training, plan),
        "weight_decay": Decision(training.weight_decay, "training.weight_decay"),
        "max_grad_norm": Decision(training.clip_norm, f"training.clip_norm; {SHARED}"),
        **_where_set("neftune_noise_alpha", training.neftune_alpha, "training.neftune_alpha"),
        "optim": Decision(
            "adamw_torch_fused",
            "torch's AdamW, all parameters in one call; on a GPU and on a CPU the same",
        ),
        "bf16": Decision(plan.precision == "bf16", "precision"),
        "fp16": Decision(plan.precision == "fp16", "precision"),
        "activation_checkpointing": Decision(
            training.gradient_checkpointing, "training.gradient_checkpointing"
        ),
        "seed": Decision(training.seed, "training.seed"),
        "data_seed": Decision(training.seed, ORDER_OF_ROWS),
        **{name: Decision(value, WHY_SETTINGS[name]) for name, value in TRAINER_SETTINGS.items()},
        **_tracker(spec),
    }


def _tracker(spec: RunSpec) -> Values:
    """The service that gets what is logged, which knows the run by its name."""
    service = spec.training.report_to
    if service == "none":
        return {}
    return {
        "report_to": Decision([service], "training.report_to"),
        "run_name": Decision(spec.name, "name: by which the service knows the run"),
    }


def _where_set(name: str, value: object | None, reason: str) -> Values:
    """An argument that is left out where the spec does not set it."""
    if value is None:
        return {}
    return {name: Decision(value, reason)}


def _schedule(training: TrainingSpec, plan: Plan) -> Values:
    """What transformers' schedules of these names are called with."""
    share = Decision(training.lr_min_share, "training.lr_min_share")
    if training.lr_schedule == "cosine_with_min_lr":
        return {"lr_scheduler_kwargs.min_lr_rate": share}
    if training.lr_schedule != "warmup_stable_decay":
        return {}
    left = plan.steps.total_steps - plan.steps.warmup_steps
    decay = min(left, math.ceil(training.lr_decay_share * plan.steps.total_steps))
    return {
        "lr_scheduler_kwargs.num_decay_steps": Decision(
            decay, "training.lr_decay_share of all steps, rounded up"
        ),
        "lr_scheduler_kwargs.min_lr_ratio": share,
    }
