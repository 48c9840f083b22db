"""Keys of an Accelerate configuration (`accelerate config`, default_config.yaml)."""

from typing import Any

from pipelines.imports import converters as to
from pipelines.imports.deepspeed_keys import offload_device, zero_stage
from pipelines.imports.rules import Rule, derived, lost, no_effect, taken

SECTIONS = ("deepspeed_config",)
LAUNCH = "hagane starts its processes itself"


def _precision(value: Any) -> str | None:
    """YAML reads an unquoted `no` as false."""
    if value is False:
        return "fp32"
    return to.one_of({"bf16": "bf16", "no": "fp32", "fp16": "auto"})(value)


RULES: dict[str, Rule] = {
    "mixed_precision": taken("training.precision", _precision, "hagane has bf16, fp16 and fp32"),
    "num_machines": taken("hardware.num_nodes", to.whole),
    "num_processes": derived("hardware.num_nodes x hardware.processes_per_node"),
    "gradient_accumulation_steps": derived("follows from global_batch, micro_batch and processes"),
    "distributed_type": lost(
        "hagane divides by DeepSpeed ZeRO", "DEEPSPEED", "NO", "MULTI_GPU", "MULTI_CPU"
    ),
    "use_cpu": derived("hardware: without a GPU there, training is on the CPU", False),
    "downcast_bf16": lost("for TPUs, which hagane does not train on", "no"),
    "fsdp_config": lost("hagane divides by DeepSpeed ZeRO"),
    "megatron_lm_config": lost("hagane divides by DeepSpeed ZeRO"),
    "parallelism_config": lost("hagane divides by DeepSpeed ZeRO"),
    "fp8_config": lost("hagane has bf16, fp16 and fp32"),
    "dynamo_config": lost("hagane does not compile the model"),
    "ipex_config": no_effect("hagane has torch's own CPU kernels"),
    "deepspeed_config.zero_stage": taken("zero.stage", zero_stage),
    "deepspeed_config.offload_optimizer_device": taken("zero.offload_optimizer", offload_device),
    "deepspeed_config.offload_param_device": taken("zero.offload_parameters", offload_device),
    "deepspeed_config.gradient_accumulation_steps": derived("follows from the batch sizes"),
    "deepspeed_config.gradient_clipping": taken("training.clip_norm", to.above_zero),
    "deepspeed_config.zero3_init_flag": no_effect("under ZeRO-3 weights are divided as they load"),
    "deepspeed_config.zero3_save_16bit_model": no_effect("the export puts the model together"),
    "deepspeed_config.deepspeed_config_file": derived("import that JSON to see its keys"),
    "deepspeed_config.deepspeed_hostfile": no_effect(LAUNCH),
    "deepspeed_config.deepspeed_multinode_launcher": no_effect(LAUNCH),
    "deepspeed_config.deepspeed_moe_layer_cls_names": no_effect("ZeRO-3 gathers each layer"),
}
RULES |= {
    name: no_effect(LAUNCH)
    for name in (
        *("compute_environment", "machine_rank", "main_process_ip", "main_process_port"),
        *("main_training_function", "rdzv_backend", "same_network", "gpu_ids", "debug"),
        *("enable_cpu_affinity", "tpu_env", "tpu_use_cluster", "tpu_use_sudo", "main_process_port"),
        *("deepspeed_fields_from_accelerate_config", "dynamo_backend", "commands", "tpu_name"),
    )
}
