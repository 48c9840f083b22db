"""Spec + plan -> the files that the training libraries read. Every value is resolved; none is left
as "auto"."""

import math
from typing import Any

from components.render_config.cost.device_memory import MAX_LIVE, reduce_bucket
from components.shared.documents.plan import LoraPlan, Plan, ZeroPlan
from components.shared.spec.run_spec import RunSpec
from components.shared.trainer_settings import TRAINER_SETTINGS

FP16_SCALE_POWER = 12
"""The loss scale begins at 2^12. From DeepSpeed's 2^16 the first steps are likely to overflow: each
is skipped, and the first does not even halve the scale (hysteresis 2, runtime/fp16/loss_scaler.py).
It doubles after 1,000 steps without an overflow."""


def deepspeed_json(spec: RunSpec, plan: Plan, *, hidden_size: int) -> dict[str, Any]:
    """DeepSpeed 0.19's config (deepspeed.ai/docs/config-json). The sizes are transformers' own rule
    (integrations/deepspeed.py): reduce bucket h², here with a floor, prefetch 0.9 h², weights below
    10 h stay whole on every process."""
    steps = plan.steps
    sums = {"data_types": {"grad_accum_dtype": "fp32"}} if plan.fp32_gradient_sums else {}
    return {
        "train_batch_size": steps.global_batch,
        "train_micro_batch_size_per_gpu": steps.micro_batch,
        "gradient_accumulation_steps": steps.grad_accum,
        "gradient_clipping": spec.training.clip_norm,
        "bf16": {"enabled": plan.precision == "bf16"},
        "fp16": {"enabled": True, "initial_scale_power": FP16_SCALE_POWER}
        if plan.precision == "fp16"
        else {"enabled": False},
        "communication_data_type": plan.precision,
        # torch's fused AdamW on the host too: DeepSpeed's CPU Adam takes 0.95 of its time and a
        # compiler (benchmarks/cpu_adam.py).
        "zero_force_ds_cpu_optimizer": False,
        **sums,
        "zero_optimization": _zero_section(plan.zero, hidden_size, full=plan.method == "full"),
    }


def _zero_section(zero: ZeroPlan, hidden_size: int, *, full: bool) -> dict[str, Any]:
    if zero.stage == 0:
        return {"stage": 0}
    section: dict[str, Any] = {
        "stage": zero.stage,
        "overlap_comm": full,
        "contiguous_gradients": True,
        "reduce_bucket_size": reduce_bucket(hidden_size),
    }
    if zero.offload_optimizer:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if zero.offload_parameters:
        section["offload_param"] = {"device": "cpu", "pin_memory": True}
    if zero.stage == 3:
        section |= {
            "stage3_prefetch_bucket_size": int(0.9 * hidden_size**2),
            "stage3_param_persistence_threshold": 10 * hidden_size,
            "stage3_max_live_parameters": MAX_LIVE,
            "stage3_max_reuse_distance": MAX_LIVE,
            # Checkpoints hold the shards once; export_adapter puts a full model together from them.
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    return section


def training_args_json(spec: RunSpec, plan: Plan) -> dict[str, Any]:
    """Keyword arguments of transformers' TrainingArguments, but for what only a worker knows: its
    folders and its device."""
    training, steps = spec.training, plan.steps
    return {
        "per_device_train_batch_size": steps.micro_batch,
        "gradient_accumulation_steps": steps.grad_accum,
        "num_train_epochs": training.epochs,
        "max_steps": -1 if training.max_steps is None else steps.total_steps,
        "dataloader_drop_last": training.drop_last,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": training.lr_schedule,
        "warmup_steps": steps.warmup_steps,
        **_schedule_settings(spec, plan),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.clip_norm,
        **_noise(spec),
        "optim": "adamw_torch_fused",
        "bf16": plan.precision == "bf16",
        "fp16": plan.precision == "fp16",
        "activation_checkpointing": training.gradient_checkpointing,
        "seed": training.seed,
        "data_seed": training.seed,
        **TRAINER_SETTINGS,
    }


def _schedule_settings(spec: RunSpec, plan: Plan) -> dict[str, Any]:
    """What transformers' schedules of these names are called with."""
    training = spec.training
    if training.lr_schedule == "cosine_with_min_lr":
        return {"lr_scheduler_kwargs": {"min_lr_rate": training.lr_min_share}}
    if training.lr_schedule == "warmup_stable_decay":
        left = plan.steps.total_steps - plan.steps.warmup_steps
        decay = min(left, math.ceil(training.lr_decay_share * plan.steps.total_steps))
        return {
            "lr_scheduler_kwargs": {"num_decay_steps": decay, "min_lr_ratio": training.lr_min_share}
        }
    return {}


def _noise(spec: RunSpec) -> dict[str, Any]:
    alpha = spec.training.neftune_alpha
    return {} if alpha is None else {"neftune_noise_alpha": alpha}


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
