"""Every value of deepspeed.json, training_args.json and lora.json -> why it is so, for plan.json and the plan's page."""

from collections.abc import Iterator
from typing import Any

from components.render_config.render.files import deepspeed_json, lora_json, training_args_json
from components.shared.documents.plan import Plan
from components.shared.spec.run_spec import RunSpec

ASKED = "as the spec asks"
PLANNED = "as the plan has it"
SHARED = "the same in deepspeed.json and training_args.json, or transformers refuses"
HIDDEN_RULE = "transformers' own rule (integrations/deepspeed.py)"

DEEPSPEED = {
    "train_batch_size": "steps.global_batch",
    "train_micro_batch_size_per_gpu": "steps.micro_batch",
    "gradient_accumulation_steps": "steps.grad_accum",
    "gradient_clipping": f"training.clip_norm; {SHARED}",
    "bf16.enabled": "precision",
    "fp16.enabled": "precision; the scale of the loss is then found by DeepSpeed as it goes",
    "fp16.initial_scale_power": "2^12 to begin with: from DeepSpeed's own 2^16 the first steps overflow and are skipped",
    "communication_data_type": "precision: gradients travel as they are, in no wider format",
    "data_types.grad_accum_dtype": "fp32_gradient_sums",
    "zero_force_ds_cpu_optimizer": "torch's fused AdamW, on the host too: DeepSpeed's own CPU Adam needs a compiler and takes 0.95 of its "
    "time (benchmarks/cpu_adam.py)",
    "zero_optimization.stage": "zero",
    "zero_optimization.overlap_comm": "in full training gradients are reduced while the backward pass goes on, for a second bucket, which "
    "the plan counts; of LoRA there is too little to reduce, and the overlap has an open data race (DeepSpeed issue 5545)",
    "zero_optimization.contiguous_gradients": "gradients of a bucket lie side by side, so that memory does not fall into pieces",
    "zero_optimization.reduce_bucket_size": f"hidden size squared, {HIDDEN_RULE}: one square weight at a time; at least "
    "5,000,000 numbers, so that an exchange of a small model takes longer than it takes to begin",
    "zero_optimization.offload_optimizer.device": "zero: optimizer state in host memory",
    "zero_optimization.offload_optimizer.pin_memory": "page-locked host memory, so that copies to and from a GPU run beside its work",
    "zero_optimization.offload_param.device": "zero: parameters in host memory",
    "zero_optimization.offload_param.pin_memory": "page-locked host memory, so that copies to and from a GPU run beside its work",
    "zero_optimization.stage3_prefetch_bucket_size": f"0.9 x hidden size squared, {HIDDEN_RULE}: what is gathered ahead of its use",
    "zero_optimization.stage3_param_persistence_threshold": f"10 x hidden size, {HIDDEN_RULE}: norms and biases stay whole everywhere",
    "zero_optimization.stage3_max_live_parameters": "DeepSpeed's default; the plan counts so many gathered parameters",
    "zero_optimization.stage3_max_reuse_distance": "DeepSpeed's default: what is used again so soon is not gathered twice",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": "checkpoints hold the shards once; the export puts the model together",
}
TRAINING_ARGS = {
    "per_device_train_batch_size": "steps.micro_batch",
    "gradient_accumulation_steps": "steps.grad_accum",
    "num_train_epochs": "training.epochs",
    "max_steps": "training.max_steps; -1 is none",
    "dataloader_drop_last": "training.drop_last",
    "learning_rate": "training.lr_peak",
    "lr_scheduler_type": "training.lr_schedule",
    "warmup_steps": "steps.warmup_steps",
    "lr_scheduler_kwargs.min_lr_rate": "training.lr_min_share",
    "lr_scheduler_kwargs.min_lr_ratio": "training.lr_min_share",
    "lr_scheduler_kwargs.num_decay_steps": "training.lr_decay_share of all steps, rounded up",
    "neftune_noise_alpha": "training.neftune_alpha",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": f"training.clip_norm; {SHARED}",
    "optim": "torch's AdamW, all parameters in one call; on a GPU and on a CPU the same",
    "bf16": "precision",
    "fp16": "precision",
    "activation_checkpointing": "training.gradient_checkpointing",
    "seed": "training.seed",
    "data_seed": "training.seed: the order of rows does not hang on what else draws numbers",
    "save_strategy": "steps.save_steps: a checkpoint at the end of each epoch",
    "logging_strategy": "a line each step, so that history.json holds every loss",
    "logging_steps": "a line each step, so that history.json holds every loss",
    "logging_nan_inf_filter": "a loss that is no number is told as such; transformers would log 0 or the mean in its place",
    "report_to": "hagane's own log and report; no other service is told",
    "disable_tqdm": "progress is one event a step in the log",
    "remove_unused_columns": "rows bring position_ids, which keep packed conversations apart",
    "dataloader_num_workers": "rows are tokenised already and lie in memory: a worker process would cost more than it saves",
}
LORA = {
    "r": "lora.rank",
    "lora_alpha": "lora.alpha",
    "use_rslora": "lora.rslora",
    "lora_dropout": "lora.dropout",
    "target_modules": "lora.target_modules",
    "target_parameters": "lora.target_parameters",
    "exclude_modules": "lora.exclude_modules: these end like a target and are none",
    "fan_in_fan_out": "lora.fan_in_fan_out",
    "bias": "biases stay frozen: an adapter of matrices alone can be merged and served",
    "task_type": "what PEFT calls a model that writes on",
}


def rendered_files(spec: RunSpec, plan: Plan, *, hidden_size: int) -> dict[str, dict[str, Any]]:
    """Name, without its ending, -> content of each file that the training libraries read."""
    files = {"deepspeed": deepspeed_json(spec, plan, hidden_size=hidden_size), "training_args": training_args_json(spec, plan)}
    return files if plan.lora is None else files | {"lora": lora_json(plan.lora)}


def file_reasons(files: dict[str, dict[str, Any]]) -> dict[str, str]:
    """`files.<file>.<field>` -> why, for every value. A bare name is the field of spec or plan whose value and reason it has."""
    known = {"deepspeed": DEEPSPEED, "training_args": TRAINING_ARGS, "lora": LORA}
    return {f"files.{name}.{field}": known[name][field] for name, content in files.items() for field, _ in leaves(content)}


def leaves(tree: dict[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of everything in a file."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{where}{key}.")
        else:
            yield where + key, value
