"""A request without a run: one node, full training or LoRA of any model, on the GPUs that torch
finds or on CPUs.

The settings of the libraries are those that render_config writes for a hidden size of 256; what
decides about speed on a large model is in the plan of a run alone.
"""

from typing import Any

import torch

from components.shared.documents.gpu_check import CheckRequest
from components.shared.documents.plan import (
    AfterPlan,
    CheckpointPlan,
    HardwarePlan,
    LoraPlan,
    MemoryPlan,
    ModelPlan,
    Plan,
    StepPlan,
    ZeroPlan,
)
from components.shared.errors import SpecError
from components.shared.job.trainer_settings import TRAINER_SETTINGS

OFFLOADED = {"device": "cpu", "pin_memory": True}


def plain_request(*, processes: int, stage: int, offload: str, method: str) -> CheckRequest:
    """Raises SpecError for an offload that DeepSpeed has not at this stage, or for no process."""
    if processes < 1:
        raise SpecError(f"--processes: found {processes}, must be at least 1")
    if offload != "none" and stage < (3 if offload == "all" else 2):
        raise SpecError(
            f"--offload: found {offload!r} with --stage {stage}, allowed with "
            f"{3 if offload == 'all' else '2 or 3'}"
        )
    on_gpus = torch.cuda.is_available()
    zero = ZeroPlan(
        stage=stage,  # pyright: ignore[reportArgumentType] - argparse knows the choices
        offload_optimizer=offload != "none",
        offload_parameters=offload == "all",
    )
    steps = StepPlan(
        num_rows=1,
        num_processes=processes,
        micro_batch=1,
        grad_accum=1,
        global_batch=processes,
        steps_per_epoch=1,
        total_steps=1,
        warmup_steps=0,
        save_steps=(1,),
        tokens_per_epoch=1,
        tokens_total=1,
    )
    if on_gpus:
        total = torch.cuda.get_device_properties(0).total_memory
    else:
        total = None
    plan = Plan(
        run="gpu-check",
        method=method,  # pyright: ignore[reportArgumentType] - argparse knows the choices
        precision="bf16"
        if on_gpus and torch.cuda.is_bf16_supported(including_emulation=False)
        else "fp32",
        num_trainable=0,
        learning_rate=1e-3,
        training_digest="0" * 64,
        model=ModelPlan(
            source="",
            revision=None,
            model_type="llama",
            num_parameters=0,
            largest_layer_parameters=0,
            num_embeddings=0,
        ),
        zero=zero,
        steps=steps,
        lora=LoraPlan(rank=8, alpha=8, dropout=0, target_modules=("q_proj",))
        if method == "lora"
        else None,
        checkpoints=CheckpointPlan(
            bytes_each=0,
            num_kept=1,
            bytes_total=0,
            node_bytes=0,
            work_bytes=0,
            saves_on_sigterm=False,
        ),
        memory=MemoryPlan(
            gpu=(), host=(), gpu_limit=total, host_limit=None, margin=0.1, options=()
        ),
        hardware=HardwarePlan(
            num_nodes=1,
            processes_per_node=processes,
            gpu="gpu" if on_gpus else None,
            tflops=None,
            link_gb_s=None,
            network_gb_s=0,
        ),
        time=None,
        after=AfterPlan(held_out_rows=0, hours=None, cpus=1, export_bytes=0, evaluate_bytes=0),
        reasons={},
    )
    return CheckRequest(plan=plan, deepspeed=_deepspeed(zero), training_args=_training_args())


def _deepspeed(zero: ZeroPlan) -> dict[str, Any]:
    section: dict[str, Any] = {"stage": zero.stage}
    if zero.stage:
        section |= {
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": 5_000_000,
        }
    if zero.offload_optimizer:
        section["offload_optimizer"] = OFFLOADED
    if zero.offload_parameters:
        section["offload_param"] = OFFLOADED
    if zero.stage == 3:
        section |= {
            "stage3_prefetch_bucket_size": 65_536,
            "stage3_param_persistence_threshold": 2_560,
        }
        section["stage3_gather_16bit_weights_on_model_save"] = False
    return {
        "gradient_clipping": 1.0,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": section,
    }


def _training_args() -> dict[str, Any]:
    return {
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "seed": 42,
        "data_seed": 42,
        **TRAINER_SETTINGS,
    }
