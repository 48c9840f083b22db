"""Fields of transformers' TrainingArguments (5.23, with names that older versions had)."""

from pipelines.imports import converters as to
from pipelines.imports.rules import Rule, derived, lost, no_effect, taken

SAVES = "a checkpoint at the end of each epoch, and checkpoints.every_minutes between"
LOGS = "hagane logs each step, and writes its own report"
HELD_OUT = "the held-out set is measured after each epoch"
LOADER = "rows are tokenised and packed before training"
ADAM = "hagane keeps AdamW's (0.9, 0.999) and 1e-8"
EPOCHS = Rule(
    "taken",
    spec_field="training.epochs",
    convert=to.rounded_up,
    hint_if_changed="a part of an epoch counts as one",
)
HUB = "publishing is a step of its own: publish.name"
DEFAULTS = {
    "training.lr_schedule": "linear",
    "training.warmup_share": 0,
    "training.lr_peak": 5e-5,
    "training.seed": 42,
}
"""Of TrainingArguments, in the spec's words."""
RULES: dict[str, Rule] = {
    "per_device_train_batch_size": taken("training.micro_batch", to.whole),
    "gradient_accumulation_steps": derived("follows from global_batch, micro_batch and processes"),
    "learning_rate": taken("training.lr_peak", to.above_zero),
    "num_train_epochs": EPOCHS,
    "max_steps": taken("training.max_steps", to.whole, "hagane trains all epochs", -1),
    "lr_scheduler_type": taken(
        "training.lr_schedule", to.schedule, "no such schedule: see training.lr_schedule"
    ),
    "lr_scheduler_kwargs": lost("use training.lr_min_share and training.lr_decay_share"),
    "warmup_ratio": taken("training.warmup_share", to.share),
    "warmup_steps": taken(
        "training.warmup_share",
        to.share,
        "a count of steps: set training.warmup_share, a share of all",
    ),
    "weight_decay": taken("training.weight_decay", to.share),
    "max_grad_norm": taken(
        "training.clip_norm", to.above_zero, "0 means none; hagane always clips"
    ),
    "label_smoothing_factor": taken("training.label_smoothing", to.share),
    "neftune_noise_alpha": taken("training.neftune_alpha", to.above_zero),
    "seed": taken("training.seed"),
    "data_seed": lost("training.seed is the seed of the order of rows too"),
    "bf16": taken("training.precision", to.bf16),
    "fp16": derived("training.precision: auto takes fp16 on GPUs without bf16", False),
    "tf32": lost("hagane leaves torch's default"),
    "gradient_checkpointing": taken("training.gradient_checkpointing", to.yes_or_no),
    "activation_checkpointing": taken("training.gradient_checkpointing", to.yes_or_no),
    "dataloader_drop_last": taken("training.drop_last", to.yes_or_no),
    "save_total_limit": taken("checkpoints.keep.last", to.whole),
    "optim": lost(
        "hagane trains with torch's fused AdamW", "adamw_torch", "adamw_torch_fused", "adamw_hf"
    ),
    "adam_beta1": lost(ADAM, 0.9),
    "adam_beta2": lost(ADAM, 0.999),
    "adam_epsilon": lost(ADAM, 1e-8, "1e-8"),
    "load_best_model_at_end": Rule("taken", "", "export.checkpoint", to.when_true("best")),
    "metric_for_best_model": lost(
        "hagane's best checkpoint has the lowest held-out loss", "loss", "eval_loss"
    ),
    "deepspeed": derived(
        "zero: the plan chooses stage and offload; import that JSON to see its keys"
    ),
    "train_sampling_strategy": lost("rows are packed and drawn at random", "random"),
    "group_by_length": lost(
        "rows are packed; without packing, padded to the longest of a micro-batch"
    ),
    "use_liger_kernel": lost("hagane computes the loss of trained tokens in chunks instead"),
    "fsdp": lost("hagane divides by DeepSpeed ZeRO"),
    "torch_compile": lost("hagane does not compile the model"),
    "use_cpu": derived("hardware: without a GPU there, training is on the CPU", False),
    "ignore_data_skip": lost("a resumed run goes on with the next rows"),
    "auto_find_batch_size": derived("training.micro_batch: auto is the most that fits"),
    "optim_args": lost("hagane trains with torch's fused AdamW"),
    "optim_target_modules": lost("hagane trains with torch's fused AdamW"),
    "parallelism_config": lost("hagane divides by DeepSpeed ZeRO"),
    "full_determinism": lost("hagane seeds everything, and leaves torch's kernels as they are"),
    "report_to": lost(LOGS, "none", ["none"]),
    "push_to_hub": lost(HUB),
    "resume_from_checkpoint": no_effect("the same command resumes from the newest checkpoint"),
}
NOTES: dict[str, tuple[str, ...]] = {
    SAVES: (
        "save_steps",
        "save_strategy",
        "save_on_each_node",
        "save_only_model",
        "save_safetensors",
    ),
    LOGS: (
        *("logging_steps", "logging_strategy", "logging_first_step", "logging_dir", "log_level"),
        *(
            "log_level_replica",
            "log_on_each_node",
            "logging_nan_inf_filter",
            "disable_tqdm",
            "run_name",
        ),
        *("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        *("skip_memory_metrics", "include_tokens_per_second", "include_num_input_tokens_seen"),
    ),
    HELD_OUT: (
        *(
            "do_eval",
            "eval_strategy",
            "evaluation_strategy",
            "eval_steps",
            "eval_delay",
            "eval_on_start",
        ),
        *("per_device_eval_batch_size", "eval_accumulation_steps", "eval_do_concat_batches"),
        *("eval_use_gather_object", "batch_eval_metrics", "prediction_loss_only", "bf16_full_eval"),
        *(
            "fp16_full_eval",
            "greater_is_better",
            "include_for_metrics",
            "label_names",
            "do_predict",
        ),
        *("include_inputs_for_metrics", "jit_mode_eval"),
    ),
    LOADER: (
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *(
            "dataloader_prefetch_factor",
            "dataloader_in_order",
            "dataloader_multiprocessing_context",
        ),
        *("remove_unused_columns", "length_column_name", "split_batches", "dispatch_batches"),
    ),
    HUB: (
        *("hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "hub_always_push"),
        *("hub_revision", "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token"),
    ),
    "hagane names the folders itself: store and name": ("output_dir", "overwrite_output_dir"),
    "the library's default, or set for hagane's processes": (
        *(
            "local_rank",
            "ddp_backend",
            "ddp_bucket_cap_mb",
            "ddp_broadcast_buffers",
            "ddp_static_graph",
        ),
        *(
            "ddp_find_unused_parameters",
            "ddp_timeout",
            "accelerator_config",
            "no_cuda",
            "use_mps_device",
        ),
        *(
            "average_tokens_across_devices",
            "use_cache",
            "do_train",
            "debug",
            "torch_empty_cache_steps",
        ),
        *("half_precision_backend", "fp16_opt_level", "fp16_backend", "xpu_backend"),
        *("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs", "fsdp_config"),
        *(
            "restore_callback_states_from_checkpoint",
            "enable_jit_checkpoint",
            "liger_kernel_config",
        ),
        *(
            "torch_compile_backend",
            "torch_compile_mode",
            "deepspeed_plugin",
            "past_index",
            "ray_scope",
        ),
    ),
}
RULES |= {name: no_effect(note) for note, names in NOTES.items() for name in names}
