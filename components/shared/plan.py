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


class CheckpointPlan(FrozenModel):
    bytes_each: int
    """Bytes of one checkpoint in the store, all processes together."""
    num_kept: int
    """Epochs whose checkpoints are in the store at the end; at most so many when `keep.best` is set."""
    bytes_total: int
    """Bytes of those."""
    node_bytes: int
    """Bytes of one checkpoint that a node writes."""
    work_bytes: int
    """Free bytes that training needs in the work folder of a node."""
    saves_on_sigterm: bool
    """Whether a node can write and upload its share of a checkpoint within the grace period."""


class Plan(FrozenModel):
    schema_version: Literal[1] = 1
    run: str
    method: Literal["lora", "full"]
    precision: Literal["bf16", "fp32"]
    """Number format of weights and activations."""
    num_trainable: int
    """Parameters that receive gradients."""
    training_digest: str
    """sha256 of all that the losses follow from: equal for plans that differ only in how the work is spread over machines."""
    zero_stage: Literal[2, 3]
    """What a checkpoint's shards were divided by: it can be resumed only at the same stage."""
    model: ModelPlan
    steps: StepPlan
    lora: LoraPlan | None
    """None when every parameter is trained."""
    checkpoints: CheckpointPlan
    reasons: dict[str, str]
    """Field of the plan, dotted -> why it has this value, in one sentence."""
