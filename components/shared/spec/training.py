"""`training` and `lora` of the spec: how the model learns."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from components.shared.documents.fields import FrozenModel, Number, exponent_number
from components.shared.printable import shown
from components.shared.spec.values import MOST_ROWS, auto_or_whole

TARGET_WORDS = ("auto", "all", "attention", "mlp")


def _word_or_names(value: object) -> object:
    if value in TARGET_WORDS:
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError(
        f"got {shown(value)}, must be {', '.join(TARGET_WORDS)} or a list of layer names"
    )


def _auto_or_rate(value: object) -> object:
    number = exponent_number(value)
    if number == "auto" or (
        isinstance(number, int | float) and not isinstance(number, bool) and 0 < number <= 1
    ):
        return number if number == "auto" else float(number)  # pyright: ignore[reportArgumentType]
    raise ValueError(f"got {shown(value)}, must be auto or a number above 0, at most 1")


Part = Literal["embeddings", "head"]
"""Layers as wide as the vocabulary: tokens to vectors, and vectors to logits."""
PARTS: tuple[Part, ...] = ("embeddings", "head")


def _auto_or_parts(value: object) -> object:
    if value == "auto":
        return value
    if isinstance(value, (list, tuple)) and value and all(part in PARTS for part in value):
        return tuple(part for part in PARTS if part in value)
    raise ValueError(
        f"got {shown(value)}, must be auto, or a list of one or both of embeddings and head"
    )


Attention = Literal["auto", "conversations", "sdpa", "eager", "flash_attention_2", "flex_attention"]


class TrainingSpec(FrozenModel):
    method: Literal["lora", "full"] = "lora"
    """`lora` trains small matrices beside the frozen base; `full` trains every parameter."""
    epochs: int = Field(default=3, ge=1, le=1000)
    """Passes over the training rows. A checkpoint is stored at the end of each."""
    global_batch: int = Field(default=8, ge=1, le=MOST_ROWS)
    """Rows per optimizer step, over all processes. Must be a multiple of `micro_batch` times the
    number of processes."""
    micro_batch: Annotated[Literal["auto"] | int, BeforeValidator(auto_or_whole(1))] = "auto"
    """Rows per process in one forward pass (`per_device_train_batch_size` of transformers). `auto`
    is the most that fits the memory. Gradient accumulation makes up the rest of `global_batch`."""
    max_steps: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Stop after this many optimizer steps, in the middle of an epoch if need be. Without it, all
    `epochs` are trained."""
    drop_last: bool = False
    """Leave out the last rows of an epoch when they do not fill a micro-batch on every process."""
    lr_peak: Annotated[Literal["auto"] | float, BeforeValidator(_auto_or_rate)] = "auto"
    """Highest learning rate, reached after the warm-up. `auto`: for LoRA 2e-4, from 20 billion
    parameters on 1e-4; for full training 2e-5, from 10 billion on 1e-5. The plan names the
    source."""
    lr_schedule: Literal[
        "cosine", "linear", "constant_with_warmup", "cosine_with_min_lr", "warmup_stable_decay"
    ] = "cosine"
    """How the learning rate falls after the warm-up. `warmup_stable_decay` stays at `lr_peak` and
    falls over the last `lr_decay_share` of all steps."""
    lr_min_share: Number = Field(default=0.1, ge=0, lt=1)
    """Share of `lr_peak` at which `cosine_with_min_lr` and `warmup_stable_decay` end."""
    lr_decay_share: Number = Field(default=0.2, gt=0, le=1)
    """Share of all steps over which `warmup_stable_decay` falls."""
    warmup_share: Number = Field(default=0.05, ge=0, lt=1)
    """Share of all steps during which the learning rate rises in equal parts to `lr_peak`. The
    first step already has one part, not 0."""
    weight_decay: Number = Field(default=0.0, ge=0, lt=1)
    """AdamW's decoupled weight decay, per unit of learning rate. Norms, biases and the state of
    recurrent layers do not decay."""
    clip_norm: Number = Field(default=1.0, gt=0, le=1e9)
    """Largest norm of the gradient over all trainable parameters."""
    label_smoothing: Number = Field(default=0.0, ge=0, lt=1)
    """Share of each trained token's target that is spread over the whole vocabulary (Szegedy et al.
    2015, arXiv 1512.00567, section 7). The held-out loss is without it."""
    neftune_alpha: Number | None = Field(default=None, gt=0, le=1000)
    """Noise on token embeddings during training, uniform up to alpha / sqrt(tokens x hidden size)
    (NEFTune, arXiv 2310.05914)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of weights and activations in the forward and backward pass: `auto` is bf16
    where the machine computes it fast, fp16 on GPUs without it such as T4 and V100, else fp32.
    Optimizer state is fp32 either way."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third more compute for much less
    memory."""
    attention: Attention = "auto"
    """How the tokens of a packed row look at each other. `conversations` computes each conversation
    by itself with torch's kernels, without a mask over the whole row; the others are transformers'
    `attn_implementation`, the last two of them for GPUs. `auto` is `conversations` where
    docs/packing.md has it, else what the model takes by itself."""
    output_layer: Literal["auto", "trained_tokens", "all_tokens"] = "auto"
    """Where logits and loss are computed: `trained_tokens` only at tokens that are trained, in
    chunks, with the same result; `all_tokens` makes the logits of whole rows at once. `auto` takes
    what needs less memory."""
    report_to: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    """Where process 0 sends loss, gradient norm and learning rate of each step too, by
    transformers' own integration. It reads the service's usual variables, such as
    MLFLOW_TRACKING_URI, WANDB_API_KEY, TENSORBOARD_LOGGING_DIR (without it, `tensorboard/` in the
    run's folder of a local store). The service's package must be installed where training runs."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of LoRA's start values, of dropout and of the order of rows."""


class LoraSpec(FrozenModel):
    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the update matrices: trainable parameters grow in proportion."""
    alpha: Number = Field(default=32.0, gt=0, le=1e6)
    """The update is scaled by alpha / rank (Hu et al. 2021, arXiv 2106.09685, section 4.1)."""
    rslora: bool = False
    """Scale it by alpha / sqrt(rank) instead, so that larger ranks learn as fast (rsLoRA, arXiv
    2312.03732)."""
    dora: bool = False
    """Train the length of each output's row of a weight apart from its direction, which the
    matrices change (DoRA, arXiv 2402.09353). Each pass makes every adapted weight anew: slower, and
    more memory."""
    plus_ratio: Number = Field(default=1.0, ge=1, le=1000)
    """Learning rate of the B matrices, which start at zero, as a multiple of that of the A matrices
    (LoRA+, arXiv 2402.12354, which takes 16 with a smaller `lr_peak`). 1 is plain LoRA."""
    dropout: Number = Field(default=0.0, ge=0, lt=1)
    """Share of a LoRA layer's inputs set to zero during training."""
    targets: Annotated[
        Literal["auto", "all", "attention", "mlp"] | tuple[str, ...],
        BeforeValidator(_word_or_names),
    ] = "auto"
    """Layers that get an update: `auto` (or `all`) takes every linear layer of the blocks and
    experts' weights, never the head or a router; `attention` and `mlp` take that part of them; or a
    list of layer names and these words."""
    also_train: Annotated[Literal["auto"] | tuple[Part, ...], BeforeValidator(_auto_or_parts)] = (
        "auto"
    )
    """Layers of the vocabulary that are trained whole beside the matrices: `[embeddings]`,
    `[head]` or `[embeddings, head]`; where the model ties them they are one weight, and both must
    be named. `auto`: only the rows of `data.new_tokens`, nothing where there are none."""
