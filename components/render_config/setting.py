"""Model, spec and hardware as one object, from which memory, time and every later choice follow.

What a plan still varies (ZeRO stage with offload, micro-batch size) is an argument beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from components.render_config.cost.hardware import Hardware
from components.render_config.model.shapes import Architecture, Linear
from components.render_config.model.targets import Targets, num_lora_parameters
from components.shared.documents.plan import Precision, Quantization, ZeroPlan
from components.shared.spec.hardware import ZeroSpec
from components.shared.spec.run_spec import RunSpec
from components.shared.spec.training import Attention, Part

WEIGHT_BYTES: dict[Precision, int] = {"bf16": 2, "fp16": 2, "fp32": 4}
# From this many micro-batches on, the error of a sum of gradients in bf16 is above that of one bf16
# gradient: 0.2 % of the exact sum at 4, 0.8 % at 64, 1.6 % at 256, where bf16 itself has 0.6 %
# (measured, tiny Llama). In fp32 it is 0 at ZeRO-2 and 3.
MANY_MICRO_BATCHES = 64


@dataclass(frozen=True)
class Rows:
    """Tokens of the rows that are trained on."""

    packed: bool
    """Several conversations share a row."""
    most_tokens: int
    """A row may have no more: `data.row_tokens`."""
    longest_tokens: int
    """Of the longest row there is. Packed rows are taken to be full."""
    mean_tokens: float
    """The same where rows are packed; else of a row of one conversation, without padding."""


@dataclass(frozen=True)
class Quantized:
    """Linear layers of the frozen base that are held in 4 bits."""

    kind: Quantization = "none"
    num_parameters: int = 0
    largest: int = 0
    """Parameters of the largest of these weights."""
    in_files: bool = False
    """The model's files hold them so already."""


@dataclass(frozen=True)
class AlsoTrained:
    """What LoRA trains of embeddings and head."""

    whole: tuple[Part, ...] = ()
    new_rows: int = 0
    """New tokens whose rows alone are trained."""
    num_parameters: int = 0
    num_added: int = 0
    """Of these, how many are no weights of the model: rows, which are a weight of their own."""

    @property
    def largest(self) -> int:
        """Parameters of the largest of these weights."""
        return self.num_parameters // max(1, len(self.whole))


NOTHING_ELSE = AlsoTrained()


@dataclass(frozen=True)
class Setting:
    spec: RunSpec
    architecture: Architecture
    targets: Targets
    hardware: Hardware
    precision: Precision
    rows: Rows
    quantized: Quantized = Quantized()
    attention: Attention | None = None
    """None: what the model takes by itself."""
    masked_attention: bool = True
    """Attention reads a mask of the whole row, and keys and values that are repeated for each
    head."""
    also: AlsoTrained = NOTHING_ELSE
    loss_chunk_tokens: int | None = None
    """Tokens whose logits are made at a time; None: of all tokens at once."""

    @property
    def full(self) -> bool:
        """Every parameter is trained; otherwise LoRA beside the frozen weights."""
        return self.spec.training.method == "full"

    @property
    def on_gpu(self) -> bool:
        return self.hardware.gpu_bytes is not None

    @property
    def num_processes(self) -> int:
        return self.hardware.num_processes

    @property
    def weight_bytes(self) -> int:
        """Of one weight in the forward and backward pass."""
        return WEIGHT_BYTES[self.precision]

    @property
    def num_trainable(self) -> int:
        """Parameters that receive gradients."""
        if self.full:
            return self.architecture.num_parameters
        lora = self.spec.lora
        matrices = num_lora_parameters(self.targets, lora.rank, dora=lora.dora)
        return matrices + self.also.num_parameters

    @property
    def num_parameters(self) -> int:
        """Of the model, with LoRA's matrices on top."""
        if self.full:
            added = 0
        else:
            added = self.num_trainable - self.also.num_parameters + self.also.num_added
        return self.architecture.num_parameters + added

    def matrix_bytes(self, zero: ZeroPlan) -> int:
        """Of a number of LoRA's matrices: PEFT makes them in fp32, and DeepSpeed leaves them so
        only at ZeRO-3; beside embeddings or head they are in these layers' format."""
        if zero.stage == 3 and not self.also.num_parameters:
            return 4
        return self.weight_bytes

    @property
    def trains_head(self) -> bool:
        """The output layer gets a gradient as large as it is."""
        return self.full or "head" in self.also.whole

    @property
    def largest_trained(self) -> int:
        """Parameters of the largest weight with a gradient; 0 for LoRA's matrices, which are
        small."""
        if self.full:
            return self.architecture.largest_layer_parameters
        return self.also.largest

    @property
    def adapted(self) -> tuple[Linear, ...]:
        """Linear layers that LoRA is put beside."""
        if self.full:
            return ()
        return self.targets.linears

    @property
    def experts_adapted(self) -> bool:
        return not self.full and bool(self.targets.experts)

    @property
    def micro_batch(self) -> int | None:
        """Rows of a process in one pass, as the spec asks; None: the most that fits."""
        asked = self.spec.training.micro_batch
        if asked == "auto":
            return None
        return asked

    @property
    def least_micro_batch(self) -> int:
        """What must fit at least."""
        return self.micro_batch or 1

    @property
    def checkpointing(self) -> bool:
        """Activations are computed again in the backward pass."""
        return self.spec.training.gradient_checkpointing

    @property
    def zero_is_open(self) -> bool:
        """The spec leaves ZeRO's stage and offload to the plan."""
        return self.spec.zero == ZeroSpec()

    @property
    def rows_of_process(self) -> int:
        """Rows of the global batch that one process computes."""
        return max(1, self.spec.training.global_batch // self.num_processes)

    def grad_accum(self, micro_batch: int) -> int:
        """Passes of a process for one optimizer step."""
        return max(1, self.spec.training.global_batch // (micro_batch * self.num_processes))

    def sums_in_fp32(self, zero: ZeroPlan, micro_batch: int) -> bool:
        """Whether gradients of 16 bits are summed over the micro-batches of a step in fp32: of
        many, where DeepSpeed 0.19 can.

        It refuses to without ZeRO, and at ZeRO-1 loses the gain when it reduces (0.17 % against 0).
        """
        return zero.stage >= 2 and self.sums_many(micro_batch)

    def sums_many(self, micro_batch: int) -> bool:
        """Whether a step sums gradients of 16 bits over many micro-batches."""
        return self.weight_bytes == 2 and self.grad_accum(micro_batch) >= MANY_MICRO_BATCHES

    def with_spec(self, changes: Mapping[str, object]) -> "Setting":
        """The same with other values of the spec, by their dotted names. They are not checked."""
        spec = self.spec
        for name, value in changes.items():
            section, _, field = name.partition(".")
            changed = getattr(spec, section).model_copy(update={field: value})
            spec = spec.model_copy(update={section: changed})
        return replace(self, spec=spec)

    def with_open_zero(self) -> "Setting":
        """The same with ZeRO left to the plan."""
        return replace(self, spec=self.spec.model_copy(update={"zero": ZeroSpec()}))
