"""Spec + plan -> deepspeed.json: DeepSpeed 0.19's config (deepspeed.ai/docs/config-json), each
value with its reason.

The sizes are transformers' own rule (integrations/deepspeed.py): reduce bucket h², here with a
floor, prefetch 0.9 h², weights below 10 h stay whole on every process. A reason that is a bare name
is the field of spec or plan that the value follows.
"""

from components.render_config.cost.device_memory import MAX_LIVE, reduce_bucket
from components.render_config.decision import Decision
from components.render_config.render.training_args import SHARED, Values
from components.shared.documents.plan import Plan, Precision, ZeroPlan
from components.shared.spec.run_spec import RunSpec

FP16_SCALE_POWER = 12
"""The loss scale begins at 2^12. From DeepSpeed's 2^16 the first steps are likely to overflow: each
is skipped, and the first does not even halve the scale (hysteresis 2, runtime/fp16/loss_scaler.py).
It doubles after 1,000 steps without an overflow."""
HIDDEN_RULE = "transformers' own rule (integrations/deepspeed.py)"
PINNED = "page-locked host memory, so that copies to and from a GPU run beside its work"
OVERLAP = (
    "in full training gradients are reduced while the backward pass goes on, for a second bucket, "
    "which the plan counts; of LoRA there is too little to reduce, and the overlap has an open "
    "data race (DeepSpeed issue 5545)"
)
OWN_ADAM = (
    "torch's fused AdamW, on the host too: DeepSpeed's own CPU Adam needs a compiler and takes "
    "0.95 of its time (benchmarks/cpu_adam.py)"
)
BUCKET = (
    f"hidden size squared, {HIDDEN_RULE}: one square weight at a time; at least 5,000,000 numbers, "
    "so that an exchange of a small model takes longer than it takes to begin"
)


def deepspeed(spec: RunSpec, plan: Plan, *, hidden_size: int) -> Values:
    steps, clip_norm = plan.steps, spec.training.clip_norm
    values: Values = {
        "train_batch_size": Decision(steps.global_batch, "steps.global_batch"),
        "train_micro_batch_size_per_gpu": Decision(steps.micro_batch, "steps.micro_batch"),
        "gradient_accumulation_steps": Decision(steps.grad_accum, "steps.grad_accum"),
        "gradient_clipping": Decision(clip_norm, f"training.clip_norm; {SHARED}"),
        **_number_formats(plan.precision),
        "zero_force_ds_cpu_optimizer": Decision(False, OWN_ADAM),
    }
    if plan.fp32_gradient_sums:
        values["data_types.grad_accum_dtype"] = Decision("fp32", "fp32_gradient_sums")
    return values | _zero(plan.zero, hidden_size, full=plan.method == "full")


def _number_formats(precision: Precision) -> Values:
    in_fp16 = precision == "fp16"
    values: Values = {
        "bf16.enabled": Decision(precision == "bf16", "precision"),
        "fp16.enabled": Decision(
            in_fp16, "precision; the scale of the loss is then found by DeepSpeed as it goes"
        ),
    }
    if in_fp16:
        values["fp16.initial_scale_power"] = Decision(
            FP16_SCALE_POWER,
            "2^12 to begin with: from DeepSpeed's own 2^16 the first steps overflow and are "
            "skipped",
        )
    values["communication_data_type"] = Decision(
        precision, "precision: gradients travel as they are, in no wider format"
    )
    return values


def _zero(zero: ZeroPlan, hidden_size: int, *, full: bool) -> Values:
    section: Values = {"stage": Decision(zero.stage, "zero")}
    if zero.stage > 0:
        section |= {
            "overlap_comm": Decision(full, OVERLAP),
            "contiguous_gradients": Decision(
                True,
                "gradients of a bucket lie side by side, so that memory does not fall into pieces",
            ),
            "reduce_bucket_size": Decision(reduce_bucket(hidden_size), BUCKET),
        }
    if zero.offload_optimizer:
        why = "zero: optimizer state in host memory"
        section["offload_optimizer.device"] = Decision("cpu", why)
        section["offload_optimizer.pin_memory"] = Decision(True, PINNED)
    if zero.offload_parameters:
        section["offload_param.device"] = Decision("cpu", "zero: parameters in host memory")
        section["offload_param.pin_memory"] = Decision(True, PINNED)
    if zero.stage == 3:
        section |= _stage_3(hidden_size)
    return {f"zero_optimization.{name}": value for name, value in section.items()}


def _stage_3(hidden_size: int) -> Values:
    return {
        "stage3_prefetch_bucket_size": Decision(
            int(0.9 * hidden_size**2),
            f"0.9 x hidden size squared, {HIDDEN_RULE}: what is gathered ahead of its use",
        ),
        "stage3_param_persistence_threshold": Decision(
            10 * hidden_size,
            f"10 x hidden size, {HIDDEN_RULE}: norms and biases stay whole everywhere",
        ),
        "stage3_max_live_parameters": Decision(
            MAX_LIVE, "DeepSpeed's default; the plan counts this many gathered parameters"
        ),
        "stage3_max_reuse_distance": Decision(
            MAX_LIVE, "DeepSpeed's default: what is used again so soon is not gathered twice"
        ),
        "stage3_gather_16bit_weights_on_model_save": Decision(
            False, "checkpoints hold the shards once; the export puts the model together"
        ),
    }
