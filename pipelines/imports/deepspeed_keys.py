"""Keys of a DeepSpeed configuration (deepspeed.ai/docs/config-json, DeepSpeed 0.19.8)."""

from typing import Any

from pipelines.imports.converters import above_zero, number, one_of, whole, yes_or_no
from pipelines.imports.rules import Rule, derived, lost, no_effect, taken

SECTIONS = (
    "zero_optimization",
    "zero_optimization.offload_optimizer",
    "zero_optimization.offload_param",
    "bf16",
    "fp16",
    "optimizer",
    "optimizer.params",
    "scheduler",
    "scheduler.params",
)


def zero_stage(value: Any) -> int | None:
    if value in (0, 1, 2, 3) and not isinstance(value, bool):
        return value
    return None


def offload_device(value: Any) -> str | None:
    if value in ("cpu", "none"):
        return value
    return None


SCHEDULES = {
    "WarmupDecayLR": "linear",
    "WarmupCosineLR": "cosine",
    "WarmupLR": "constant_with_warmup",
}
BUFFER = "hagane sets its own value, and the plan counts the memory"
LOSS_SCALE = "without bf16 on the GPU, hagane trains in fp16 and lets DeepSpeed find the loss scale"
MONITOR = "hagane has its own log and report"
ZEROPP = "hagane has no ZeRO++"
RULES: dict[str, Rule] = {
    "train_batch_size": taken("training.global_batch", whole),
    "train_micro_batch_size_per_gpu": taken("training.micro_batch", whole),
    "gradient_accumulation_steps": derived("follows from global_batch, micro_batch and processes"),
    "dataloader_drop_last": taken("training.drop_last", yes_or_no),
    "gradient_clipping": taken(
        "training.clip_norm", above_zero, "0 means none; hagane always clips"
    ),
    "bf16.enabled": taken("training.precision", lambda value: "bf16" if value is True else "auto"),
    "bf16.*": no_effect("hagane's own settings of bf16"),
    "fp16.enabled": derived("training.precision: auto takes fp16 on GPUs without bf16", False),
    "fp16.*": no_effect(LOSS_SCALE),
    "optimizer.type": lost("hagane trains with torch's fused AdamW", "AdamW", "Adam"),
    "optimizer.params.lr": taken("training.lr_peak", above_zero),
    "optimizer.params.weight_decay": taken("training.weight_decay", number),
    "optimizer.params.betas": lost("hagane keeps AdamW's (0.9, 0.999)", [0.9, 0.999]),
    "optimizer.params.eps": lost("hagane keeps AdamW's 1e-8", 1e-8, "1e-8"),
    "optimizer.params.adam_w_mode": lost("hagane always decays decoupled", True),
    "optimizer.params.torch_adam": no_effect("hagane always uses torch's AdamW"),
    "optimizer.*": lost("hagane trains with torch's fused AdamW"),
    "scheduler.type": Rule(
        "taken",
        "the learning rate falls by training.lr_schedule",
        "training.lr_schedule",
        one_of(SCHEDULES),
    ),
    "scheduler.params.warmup_num_steps": lost(
        "hagane takes a share of all steps: training.warmup_share", 0
    ),
    "scheduler.params.warmup_min_lr": lost(
        "hagane's warm-up starts above 0, with one part", 0, 0.0
    ),
    "scheduler.params.warmup_max_lr": taken("training.lr_peak", above_zero),
    "scheduler.params.warmup_type": lost("hagane's warm-up is linear", "linear"),
    "scheduler.params.total_num_steps": derived("epochs x steps per epoch"),
    "scheduler.*": lost("hagane's schedules: training.lr_schedule"),
    "zero_optimization.stage": taken("zero.stage", zero_stage),
    "zero_optimization.offload_optimizer.device": taken(
        "zero.offload_optimizer", offload_device, "hagane offloads to host memory, not to NVMe"
    ),
    "zero_optimization.offload_optimizer.pin_memory": no_effect("hagane always page-locks it"),
    "zero_optimization.offload_param.device": taken(
        "zero.offload_parameters", offload_device, "hagane offloads to host memory, not to NVMe"
    ),
    "zero_optimization.offload_param.pin_memory": no_effect("hagane always page-locks it"),
    "zero_optimization.cpu_offload": lost("old name: use zero.offload_optimizer: cpu"),
    "zero_optimization.cpu_offload_param": lost("old name: use zero.offload_parameters: cpu"),
    "zero_optimization.overlap_comm": derived("on in full training, off for LoRA"),
    "zero_optimization.contiguous_gradients": no_effect("hagane always sets it"),
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": no_effect(
        "checkpoints hold shards; the export puts the model together"
    ),
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": no_effect(
        "checkpoints hold shards; the export puts the model together"
    ),
    "zero_optimization.zero_hpz_partition_size": lost(ZEROPP, 1),
    "zero_optimization.zero_quantized_weights": lost(ZEROPP),
    "zero_optimization.zero_quantized_nontrainable_weights": lost(ZEROPP),
    "zero_optimization.zero_quantized_gradients": lost(ZEROPP),
    "zero_optimization.mics_shard_size": lost("hagane has no MiCS", -1),
    "zero_optimization.round_robin_gradients": no_effect(
        "DeepSpeed's default; results are the same"
    ),
    "zero_optimization.elastic_checkpoint": no_effect(
        "hagane resumes on another number of processes"
    ),
    "zero_optimization.zenflow": lost("hagane has no ZenFlow"),
    "activation_checkpointing.*": lost("DeepSpeed's own; use training.gradient_checkpointing"),
    "activation_checkpointing": lost("DeepSpeed's own; use training.gradient_checkpointing"),
    "zero_force_ds_cpu_optimizer": no_effect("hagane offloads torch's fused AdamW"),
    "zero_allow_untested_optimizer": no_effect("hagane's optimizer is tested by DeepSpeed"),
    "communication_data_type": derived("gradients travel in the training's precision"),
    "seq_parallel_communication_data_type": no_effect("hagane has no sequence parallelism"),
    "prescale_gradients": lost("DeepSpeed's default is kept"),
    "gradient_predivide_factor": lost("DeepSpeed's default is kept", 1, 1.0),
    "sparse_gradients": lost("hagane has no sparse gradients"),
    "disable_allgather": lost("DeepSpeed's default is kept"),
    "dump_state": no_effect("prints only"),
    "data_types": derived("gradients of 16 bits are summed in fp32 from 64 micro-batches on"),
    "steps_per_print": no_effect("hagane logs each step"),
    "wall_clock_breakdown": no_effect("hagane measures each step itself"),
    "memory_breakdown": no_effect("prints only"),
    "compile": lost("hagane does not compile the model"),
    "torch_autocast": lost("hagane loads the weights in the training's precision"),
    "gradient_allreduce_op": lost("DeepSpeed's default is kept", "mean"),
    "managed_gradient_accumulation": no_effect("hagane sets it"),
    "disable_python_gc": no_effect("no result changes with it"),
    "vocabulary_size": derived("from config.json"),
}
SECTIONS_WITHOUT_RULES = {
    "tensorboard": MONITOR,
    "wandb": MONITOR,
    "comet": MONITOR,
    "csv_monitor": MONITOR,
    "monitor_config": MONITOR,
    "flops_profiler": "measures only",
    "comms_logger": "measures only",
    "aio": "for NVMe, to which hagane does not offload",
    "checkpoint": "hagane has its own checkpoints: checkpoints.*",
    "nebula": "hagane has its own checkpoints: checkpoints.*",
    "use_node_local_storage": "hagane has its own checkpoints: checkpoints.*",
    "load_universal_checkpoint": "hagane decides it when it resumes",
}
LOST_SECTIONS = {
    "amp": "hagane trains in bf16, fp16 or fp32",
    "elasticity": "hagane resumes on another number of processes by itself",
    "autotuning": "the plan chooses instead",
    "compression_training": "hagane has none",
    "quantize_training": "hagane has none",
    "data_efficiency": "hagane has none",
    "curriculum_learning": "hagane has none",
    "progressive_layer_drop": "hagane has none",
    "sparse_attention": "hagane has none",
    "eigenvalue": "hagane has none",
    "hybrid_engine": "hagane has none",
    "pipeline": "hagane has no pipeline parallelism",
    "tensor_parallel": "hagane has no tensor parallelism",
    "weight_quantization": "hagane has none",
    "sequence_parallel_size": "hagane has no sequence parallelism",
}
ZERO_BUFFERS = (
    *("reduce_scatter", "reduce_bucket_size", "use_multi_rank_bucket_allreduce"),
    *("allgather_partitions", "allgather_bucket_size", "sub_group_size"),
    *("load_from_fp32_weights", "ignore_unused_parameters", "legacy_stage1"),
    *("cpu_offload_use_pin_memory", "max_live_parameters", "max_reuse_distance"),
    *("stage3_max_live_parameters", "stage3_max_reuse_distance"),
    *("stage3_prefetch_bucket_size", "prefetch_bucket_size"),
    *("stage3_param_persistence_threshold", "param_persistence_threshold"),
    *("stage3_model_persistence_threshold", "model_persistence_threshold"),
    *("gather_16bit_weights_on_model_save", "stage3_use_all_reduce_for_fetch_params"),
    *("use_all_reduce_for_fetch_params", "stage3_module_granularity_threshold"),
    *("module_granularity_threshold", "mics_hierarchical_params_gather"),
    *("memory_efficient_linear", "pipeline_loading_checkpoint", "override_module_apply"),
    *("log_trace_cache_warnings", "enable_sanity_checks", "save_muon_momentum_buffer_in_memory"),
    *("compute_grad_norm", "parameter_alignment"),
    *("leaf_module", "allgather_sequential", "stage3_allgather_sequential"),
)
RULES |= {f"zero_optimization.{name}": derived(BUFFER) for name in ZERO_BUFFERS}
for _part in ("offload_optimizer", "offload_param"):
    for _name in (
        *("nvme_path", "buffer_count", "buffer_size", "max_in_cpu", "pipeline_read"),
        *(
            "pipeline_write",
            "pipeline",
            "fast_init",
            "ratio",
            "super_offload",
            "cpuadam_cores_perc",
        ),
    ):
        RULES[f"zero_optimization.{_part}.{_name}"] = no_effect("for NVMe or another optimizer")
RULES |= {name: no_effect(note) for name, note in SECTIONS_WITHOUT_RULES.items()}
RULES |= {name: lost(note) for name, note in LOST_SECTIONS.items()}
