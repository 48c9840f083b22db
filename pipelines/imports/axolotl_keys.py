"""Keys of an Axolotl YAML (docs.axolotl.ai/docs/config-reference.html)."""

from dataclasses import replace

from pipelines.imports import converters as to
from pipelines.imports.axolotl_sources import SOURCES
from pipelines.imports.rules import Rule, derived, lost, no_effect, taken
from pipelines.imports.training_args_keys import ADAM, EPOCHS, HUB, LOGS, SAVES
from pipelines.imports.trl_keys import ATTENTION, EMBEDDINGS_AND_HEAD, FOUR_BITS, QUANTIZED

METHODS = {"lora": "lora", "qlora": "lora"}
OPTIMIZER = "hagane trains with torch's fused AdamW"
KERNELS = (
    "hagane computes attention and loss with torch's kernels: training.attention, "
    "training.output_layer"
)
RULES: dict[str, Rule] = {
    "base_model": taken("model.source"),
    "revision_of_model": taken("model.revision"),
    "base_model_config": derived("from the model's folder"),
    "model_type": derived("from config.json"),
    "tokenizer_type": derived("from the model's folder"),
    "tokenizer_config": lost("hagane takes the model's own tokenizer"),
    "trust_remote_code": lost("hagane runs no code of a model's repository"),
    "overrides_of_model_config": lost("set it in the model's config.json"),
    "rope_scaling": lost("set it in the model's config.json"),
    "load_in_8bit": lost(QUANTIZED),
    "load_in_4bit": FOUR_BITS,
    "bnb_config_kwargs": lost(QUANTIZED),
    "gptq": lost(QUANTIZED),
    "adapter": taken("training.method", to.one_of(METHODS), "hagane has lora and full"),
    "lora_model_dir": lost("a run starts from the base model; merge the adapter first"),
    "lora_r": taken("lora.rank", to.whole),
    "lora_alpha": taken("lora.alpha", to.above_zero),
    "lora_dropout": taken("lora.dropout", to.share),
    "lora_target_modules": taken("lora.targets", to.targets),
    "lora_target_linear": Rule("taken", "", "lora.targets", to.when_true("all")),
    "lora_target_parameters": derived("lora.targets: experts' weights are in auto and all"),
    "lora_fan_in_fan_out": derived("from the model's layers"),
    "lora_modules_to_save": taken("lora.also_train", to.vocabulary_layers, EMBEDDINGS_AND_HEAD),
    "peft_use_rslora": taken("lora.rslora", to.yes_or_no),
    "peft_use_dora": taken("lora.dora", to.yes_or_no),
    "peft_layers_to_transform": lost("hagane adapts every block"),
    "loraplus_lr_ratio": taken("lora.plus_ratio", to.above_zero),
    "relora": lost("hagane has no ReLoRA"),
    "datasets": SOURCES,
    "test_datasets": replace(SOURCES, spec_field="data.held_out"),
    "pretraining_dataset": replace(
        SOURCES, hint="continued pretraining: where it is not yet, set data.format: text"
    ),
    "dataset_prepared_path": no_effect("the dataset is a folder of the run"),
    "dataset_processes": no_effect("one process for each core"),
    "shuffle_merged_datasets": no_effect("rows are drawn at random by training.seed"),
    "val_set_size": taken(
        "data.held_out_share", to.share, "a count: set data.held_out_share, a share"
    ),
    "sequence_len": taken("data.row_tokens", to.whole),
    "sample_packing": taken("data.packing", to.yes_or_no),
    "eval_sample_packing": no_effect("held-out rows are packed as training rows are"),
    "sample_packing_group_size": no_effect("no result changes with it"),
    "sample_packing_bin_size": no_effect("no result changes with it"),
    "pad_to_sequence_len": no_effect(
        "packed rows are full; others are padded to their micro-batch"
    ),
    "excess_length_strategy": Rule(
        "taken", "", "data.too_long", lambda value: "drop" if value == "drop" else None
    ),
    "train_on_inputs": lost(
        "only assistant turns are trained; data.format: text trains on all tokens"
    ),
    "group_by_length": lost("rows are packed"),
    "chat_template": lost(
        "hagane takes the model's own; save this one as a file and name it in data.chat_template",
        "tokenizer_default",
    ),
    "chat_template_jinja": lost("save it as a file and name it in data.chat_template"),
    "default_system_message": lost("put the system turn into the data"),
    "special_tokens": lost("hagane adds no tokens, and takes the tokenizer's own"),
    "tokens": taken("data.new_tokens", to.texts),
    "gradient_accumulation_steps": derived("follows from global_batch, micro_batch and processes"),
    "micro_batch_size": taken("training.micro_batch", to.whole),
    "batch_size": taken("training.global_batch", to.whole),
    "eval_batch_size": no_effect("the held-out set is measured after each epoch"),
    "num_epochs": EPOCHS,
    "max_steps": taken("training.max_steps", to.whole, "", -1),
    "optimizer": lost(OPTIMIZER, "adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw"),
    "optim_args": lost(OPTIMIZER),
    "adam_beta1": lost(ADAM, 0.9),
    "adam_beta2": lost(ADAM, 0.999),
    "adam_epsilon": lost(ADAM, 1e-8, "1e-8"),
    "lr_scheduler": taken(
        "training.lr_schedule", to.schedule, "no such schedule: see training.lr_schedule"
    ),
    "lr_scheduler_kwargs": lost("use training.lr_min_share and training.lr_decay_share"),
    "cosine_min_lr_ratio": taken(
        "training.lr_min_share", to.share, hint="with lr_schedule: cosine_with_min_lr"
    ),
    "learning_rate": taken("training.lr_peak", to.above_zero),
    "warmup_steps": taken(
        "training.warmup_share",
        to.share,
        "a count of steps: set training.warmup_share, a share of all",
    ),
    "warmup_ratio": taken("training.warmup_share", to.share),
    "weight_decay": taken("training.weight_decay", to.share),
    "max_grad_norm": taken("training.clip_norm", to.above_zero),
    "neftune_noise_alpha": taken("training.neftune_alpha", to.above_zero),
    "seed": taken("training.seed"),
    "bf16": taken("training.precision", to.bf16),
    "bfloat16": taken("training.precision", to.bf16),
    "fp16": derived("training.precision: auto takes fp16 on GPUs without bf16", False),
    "float16": derived("training.precision: auto takes fp16 on GPUs without bf16", False),
    "tf32": lost("hagane leaves torch's default"),
    "gradient_checkpointing": taken("training.gradient_checkpointing", to.yes_or_no),
    "gradient_checkpointing_kwargs": no_effect("hagane sets it"),
    "flash_attention": derived(ATTENTION),
    "flex_attention": derived(ATTENTION),
    "sdp_attention": derived(ATTENTION),
    "eager_attention": derived(ATTENTION),
    "xformers_attention": lost(KERNELS),
    "s2_attention": lost(KERNELS),
    "attn_implementation": derived(ATTENTION),
    "plugins": lost(KERNELS),
    "cut_cross_entropy": lost(KERNELS),
    "torch_compile": lost("hagane does not compile the model"),
    "deepspeed": derived(
        "zero: the plan chooses stage and offload; import that JSON to see its keys"
    ),
    "fsdp": lost("hagane divides by DeepSpeed ZeRO"),
    "fsdp_config": no_effect("hagane divides by DeepSpeed ZeRO"),
    "fsdp_version": no_effect("hagane divides by DeepSpeed ZeRO"),
    "context_parallel_size": lost("hagane has none", 1),
    "tensor_parallel_size": lost("hagane has none", 1),
    "early_stopping_patience": lost(
        "hagane trains all epochs; export.checkpoint: best takes the best"
    ),
    "rl": lost("hagane trains on the next token"),
    "output_dir": no_effect("hagane names the folders itself: store and name"),
    "hub_model_id": lost(HUB),
    "save_total_limit": taken("checkpoints.keep.last", to.whole),
    "load_best_model_at_end": Rule("taken", "", "export.checkpoint", to.when_true("best")),
    "merge_lora": Rule("taken", "", "export.merge", to.yes_or_no),
    "resume_from_checkpoint": no_effect("the same command resumes from the newest checkpoint"),
}
NOTES: dict[str, tuple[str, ...]] = {
    SAVES: (
        "saves_per_epoch",
        "save_steps",
        "save_strategy",
        "save_safetensors",
        "save_only_model",
        "save_first_step",
    ),
    LOGS: (
        *(
            "logging_steps",
            "wandb_project",
            "wandb_entity",
            "wandb_watch",
            "wandb_name",
            "wandb_run_id",
        ),
        *(
            "wandb_log_model",
            "wandb_mode",
            "mlflow_tracking_uri",
            "mlflow_experiment_name",
            "use_wandb",
        ),
        *("mlflow_run_name", "use_mlflow", "use_comet", "use_tensorboard", "comet_project_name"),
        *("include_tokens_per_second", "profiler_steps", "debug"),
    ),
    "the held-out set is measured after each epoch": (
        *(
            "evals_per_epoch",
            "eval_steps",
            "eval_strategy",
            "eval_table_size",
            "eval_max_new_tokens",
        ),
        *("do_causal_lm_eval", "eval_causal_lm_metrics"),
    ),
    "the library's default, or set for hagane's processes": (
        *("local_rank", "ddp", "ddp_timeout", "ddp_bucket_cap_mb", "ddp_find_unused_parameters"),
        *(
            "strict",
            "dataloader_num_workers",
            "dataloader_pin_memory",
            "dataloader_prefetch_factor",
        ),
        *(
            "auto_resume_from_checkpoints",
            "hf_use_auth_token",
            "world_size",
            "device_map",
            "max_memory",
        ),
        *("low_cpu_mem_usage", "gc_steps", "is_llama_derived_model", "is_mistral_derived_model"),
        *("loss_watchdog_threshold", "loss_watchdog_patience", "tokenizer_use_fast", "use_ray"),
    ),
    KERNELS: (
        *(
            "liger_rope",
            "liger_rms_norm",
            "liger_glu_activation",
            "liger_layer_norm",
            "liger_swiglu",
        ),
        *("liger_fused_linear_cross_entropy", "liger_cross_entropy", "lora_mlp_kernel"),
        *("lora_qkv_kernel", "lora_o_kernel", "unsloth_cross_entropy_loss", "unsloth_lora_mlp"),
        *("unsloth_lora_qkv", "unsloth_lora_o", "flash_attn_cross_entropy", "flash_attn_rms_norm"),
        *("flash_attn_fuse_mlp", "flash_attn_fuse_qkv", "chunked_cross_entropy"),
    ),
}
RULES |= {name: no_effect(note) for note, names in NOTES.items() for name in names}
