"""Plans written by hand, for tests of steps that only obey them."""

from typing import Literal

from components.shared.documents.plan import (
    AfterPlan,
    CheckpointPlan,
    HardwarePlan,
    LoraPlan,
    MemoryPlan,
    MemoryTerm,
    ModelPlan,
    Plan,
    StepPlan,
    ZeroPlan,
)
from components.shared.spec.run_spec import RunSpec

TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
}

MEMORY = MemoryPlan(
    gpu=(),
    host=(MemoryTerm(name="weights", num_bytes=2**31, formula="given", source="given"),),
    gpu_limit=None,
    host_limit=None,
    margin=0.1,
    options=(),
)
"""2 GiB on a CPU."""


def make_plan(
    spec: RunSpec,
    *,
    architecture: Literal["llama", "gpt_neox"] = "llama",
    num_rows: int = 8,
    tokens_per_epoch: int = 1000,
    num_parameters: int = 125_248,
    num_trainable: int = 8_192,
    revision: str | None = None,
    reasons: dict[str, str] | None = None,
) -> Plan:
    """A plan for one process that follows from the spec; numbers of the model are as given."""
    training = spec.training
    steps_per_epoch = -(-num_rows // training.global_batch)
    save_steps = tuple(steps_per_epoch * epoch for epoch in range(1, training.epochs + 1))
    lora = LoraPlan(
        rank=spec.lora.rank,
        alpha=spec.lora.alpha,
        dropout=spec.lora.dropout,
        target_modules=TARGETS[architecture],
    )
    bytes_each = 16 * num_trainable
    micro_batch = 1 if training.micro_batch == "auto" else training.micro_batch
    return Plan(
        run=spec.name,
        method=training.method,
        precision="fp32" if training.precision == "auto" else training.precision,
        num_trainable=num_trainable,
        learning_rate=2e-4 if training.lr_peak == "auto" else training.lr_peak,
        training_digest="7" * 64,
        model=ModelPlan(
            source=spec.model.source,
            revision=revision,
            model_type=architecture,
            num_parameters=num_parameters,
            largest_layer_parameters=num_parameters // 4,
            num_embeddings=400,
        ),
        zero=ZeroPlan(stage=3 if spec.zero.stage == "auto" else spec.zero.stage),
        steps=StepPlan(
            num_rows=num_rows,
            num_processes=1,
            micro_batch=micro_batch,
            grad_accum=training.global_batch // micro_batch,
            global_batch=training.global_batch,
            steps_per_epoch=steps_per_epoch,
            total_steps=save_steps[-1],
            warmup_steps=1,
            save_steps=save_steps,
            tokens_per_epoch=tokens_per_epoch,
            tokens_total=tokens_per_epoch * training.epochs,
        ),
        lora=lora if training.method == "lora" else None,
        checkpoints=CheckpointPlan(
            bytes_each=bytes_each,
            num_kept=training.epochs,
            bytes_total=bytes_each * training.epochs,
            node_bytes=bytes_each,
            work_bytes=2 * bytes_each,
            saves_on_sigterm=True,
        ),
        memory=MEMORY,
        time=None,
        hardware=HardwarePlan(
            num_nodes=1,
            processes_per_node=1,
            gpu=None,
            tflops=None,
            link_gb_s=None,
            network_gb_s=12.5,
        ),
        after=AfterPlan(
            held_out_rows=1000, hours=0.1, cpus=2, export_bytes=2**30, evaluate_bytes=2**30
        ),
        reasons=reasons or {},
    )
