"""The plan: what the machine decided from the spec, the dataset and the model's config. Later steps only obey it."""

from typing import Literal

from components.shared.spec import FrozenModel


class ModelPlan(FrozenModel):
    source: str
    """Folder or hub id, as in the spec."""
    revision: str | None
    """The hub commit that a branch or tag stood for when the dataset was made; None for a folder."""
    model_type: str
    num_parameters: int
    largest_layer_parameters: int


class StepPlan(FrozenModel):
    num_rows: int
    """Packed training rows."""
    num_processes: int
    micro_batch: int
    """Rows per process in one forward pass."""
    grad_accum: int
    """Forward passes per optimizer step."""
    global_batch: int
    """Rows per optimizer step: micro_batch x grad_accum x num_processes."""
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    save_steps: tuple[int, ...]
    """The optimizer steps, counted from 1, after which a checkpoint is stored: the last of each epoch."""
    tokens_per_epoch: int
    """Tokens in all training rows, padding not counted."""


class LoraPlan(FrozenModel):
    rank: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...]
    """Names of linear layers, as PEFT matches them: the last parts of their paths."""
    target_parameters: tuple[str, ...] = ()
    """Experts' 3-D parameters, by their module's name and their own."""
    exclude_modules: tuple[str, ...] = ()
    """Full names, `*` for an index, of layers that end like a target and are none."""
    fan_in_fan_out: bool = False
    """The targets are GPT-2's Conv1D, which stores its weight (inputs, outputs)."""


class CheckpointPlan(FrozenModel):
    bytes_each: int
    """Bytes of one checkpoint in the store, all processes together."""
    bytes_total: int
    """Bytes of all checkpoints of the run in the store."""
    work_bytes: int
    """Free bytes that training needs in the work folder of a node."""


class Plan(FrozenModel):
    schema_version: Literal[1] = 1
    run: str
    method: Literal["lora", "full"]
    precision: Literal["bf16", "fp32"]
    """Number format of weights and activations."""
    num_trainable: int
    """Parameters that receive gradients."""
    model: ModelPlan
    steps: StepPlan
    lora: LoraPlan | None
    """None when every parameter is trained."""
    checkpoints: CheckpointPlan
    reasons: dict[str, str]
    """Field of the plan, dotted -> why it has this value, in one sentence."""
