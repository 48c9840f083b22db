"""The plan: what the machine decided from the spec, the dataset and the model's config. Later steps
only obey it."""

import math
import re
from typing import Any, Literal

from pydantic import Field

from components.shared.documents.fields import FrozenModel
from components.shared.documents.probe import ProbePlan

Precision = Literal["bf16", "fp16", "fp32"]
Quantization = Literal["none", "nf4"]


class ModelPlan(FrozenModel):
    source: str
    """Folder or hub id, as in the spec."""
    revision: str | None
    """The hub commit that a branch or tag stood for when the dataset was made; None for a
    folder."""
    model_type: str
    num_parameters: int
    largest_layer_parameters: int
    quantization: Quantization = "none"
    """How linear layers of the frozen base are held: in the plan's precision, or in 4 bits
    (components/shared/model/quantization.py)."""
    num_quantized: int = 0
    """Parameters that are held in 4 bits."""
    quantized_files: bool = False
    """Whether the model's files hold them in 4 bits already."""
    num_new_tokens: int = 0
    """Tokens of `data.new_tokens`: `num_parameters` counts their rows."""
    num_embeddings: int
    """Rows of the embeddings, theirs included."""


class StepPlan(FrozenModel):
    num_rows: int
    """Training rows."""
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
    """The optimizer steps, counted from 1, after which a checkpoint is stored: the last of each
    epoch."""
    tokens_per_epoch: int
    """Tokens in all training rows, padding not counted."""
    tokens_total: int
    """Tokens that all processes see in the whole training; rows that fill up a last batch count
    again. Exact where rows are equally long, else by their mean length."""


class LoraPlan(FrozenModel):
    rank: int
    alpha: float
    rslora: bool = False
    """The update is scaled by alpha / sqrt(rank)."""
    dora: bool = False
    """Lengths of the weights' rows are trained beside the matrices."""
    plus_ratio: float = 1.0
    """Learning rate of the B matrices, as a multiple of `learning_rate`."""
    dropout: float
    target_modules: tuple[str, ...]
    """Names of linear layers, as PEFT matches them: the last parts of their paths."""
    target_parameters: tuple[str, ...] = ()
    """Experts' 3-D parameters, by their module's name and their own."""
    exclude_modules: tuple[str, ...] = ()
    """Full names, `*` for an index, of layers that end like a target and are none."""
    fan_in_fan_out: bool = False
    """The targets are GPT-2's Conv1D, which stores its weight (inputs, outputs)."""
    also_train: tuple[Literal["embeddings", "head"], ...] = ()
    """Layers of the vocabulary that are trained whole."""
    new_rows: int = 0
    """New tokens whose rows of embeddings and head alone are trained."""

    @property
    def changes_vocabulary(self) -> bool:
        """Embeddings or head are trained, whole or in part."""
        return bool(self.also_train or self.new_rows)

    @property
    def scale(self) -> float:
        """Of the product of the two matrices: alpha / rank (arXiv 2106.09685), in rsLoRA alpha /
        sqrt(rank) (2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def peft_config(self) -> dict[str, Any]:
        """Keyword arguments of PEFT's LoraConfig: what training and export build the adapter
        from."""
        optional: dict[str, Any] = {}
        if self.target_parameters:
            optional["target_parameters"] = list(self.target_parameters)
        if self.rslora:
            optional["use_rslora"] = True
        if self.dora:
            optional["use_dora"] = True
        if self.fan_in_fan_out:
            optional["fan_in_fan_out"] = True
        if self.exclude_modules:
            names = (re.escape(name).replace(r"\*", r"\d+") for name in self.exclude_modules)
            # PEFT takes text for a pattern of the whole name.
            optional["exclude_modules"] = rf"(.*\.)?({'|'.join(names)})"
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.target_modules),
            "bias": "none",
            "task_type": "CAUSAL_LM",
            **optional,
        }


class ZeroPlan(FrozenModel):
    stage: Literal[0, 1, 2, 3]
    offload_optimizer: bool = False
    """Optimizer state in host memory."""
    offload_parameters: bool = False
    """Parameters in host memory between uses."""

    @property
    def name(self) -> str:
        """Such as `ZeRO-3, optimizer and parameters in host memory`."""
        held = {
            (False, False): "",
            (True, False): ", optimizer in host memory",
            (True, True): ", optimizer and parameters in host memory",
        }
        if self.stage:
            stage = f"ZeRO-{self.stage}"
        else:
            stage = "no ZeRO"
        return stage + held[(self.offload_optimizer, self.offload_parameters)]


class MemoryTerm(FrozenModel):
    """One thing that takes memory."""

    name: str
    num_bytes: int
    formula: str
    """With its numbers filled in."""
    source: str
    """Where the formula is from."""


class ZeroOption(FrozenModel):
    """One way to divide and offload, for this model on this hardware: the chosen one with the
    plan's micro-batch, others with one row per micro-batch."""

    zero: ZeroPlan
    gpu_bytes: int
    host_bytes: int
    gpu_kinds: dict[str, int] = Field(default_factory=dict)
    """What `gpu_bytes` is made of: weights, gradients, optimizer state, activations, all else."""
    host_kinds: dict[str, int] = Field(default_factory=dict)
    fits: bool
    cost: str
    """What it slows, in one sentence."""


class Memory(FrozenModel):
    """Peak memory. On a CPU there is no GPU part: all of it is host memory."""

    gpu: tuple[MemoryTerm, ...]
    """Of one GPU."""
    host: tuple[MemoryTerm, ...]
    """Of one node, all its processes together."""
    transient: tuple[MemoryTerm, ...] = ()
    """What the host of a node with GPUs holds at times: while it loads the weights, saves a
    checkpoint, resumes from one. Never two at once, so only the largest is one of `host`. Empty on
    a CPU."""

    @property
    def gpu_bytes(self) -> int:
        return sum(term.num_bytes for term in self.gpu)

    @property
    def host_bytes(self) -> int:
        return sum(term.num_bytes for term in self.host)


class MemoryPlan(Memory):
    """That of the chosen way, beside what the hardware has and what other ways would take."""

    gpu_limit: int | None
    """Bytes of one GPU; None on a CPU."""
    host_limit: int | None
    """Bytes of one node; None where the spec does not say."""
    margin: float
    options: tuple[ZeroOption, ...]
    """Every stage and offload, in the order in which they slow training."""


class TimePlan(FrozenModel):
    """An estimate; the report sets it beside what happened."""

    seconds_per_step: float
    low: float
    """Of the range of `seconds_per_step`."""
    high: float
    parts: dict[str, float]
    """Seconds of a step: compute, memory, communication, host, and what is fixed."""
    hours: float
    """Of the whole training, checkpoints included."""
    hours_low: float
    hours_high: float
    checkpoint_seconds: float
    """To upload one checkpoint; it happens beside training."""
    price: float | None
    currency: str | None = None
    """Of the price, as hardware.currency says."""
    formula: str
    source: str

    @property
    def price_with_currency(self) -> str | None:
        """`USD 24.74`; where the spec names no currency, that of hardware.price_per_gpu_hour."""
        if self.price is None:
            return None
        if self.currency is None:
            return f"{self.price:,.2f} (in the currency of price_per_gpu_hour)"
        return f"{self.currency} {self.price:,.2f}"


class CheckpointPlan(FrozenModel):
    bytes_each: int
    """Bytes of one checkpoint in the store, all processes together."""
    num_kept: int
    """Epochs whose checkpoints are in the store at the end; at most this many when `keep.best` is
    set."""
    bytes_total: int
    """Bytes of those."""
    node_bytes: int
    """Bytes of one checkpoint that the node with process 0 writes; no other writes more."""
    work_bytes: int
    """Free bytes that training needs in the work folder of a node."""
    saves_on_sigterm: bool
    """Whether a node can write and upload its share of a checkpoint within the grace period."""


class HardwarePlan(FrozenModel):
    """What the plan assumes of the hardware, for whoever compares it with what is there."""

    num_nodes: int
    processes_per_node: int
    gpu: str | None
    """Name of the GPU, `gpu` for one known only by its memory; None on CPUs."""
    tflops: float | None
    """Dense matrix products of one GPU in the plan's precision, by its data sheet; None where that
    is not known."""
    link_gb_s: float | None
    """What one GPU sends to the others of its node, in GB/s; None where that is not known."""
    network_gb_s: float
    """What one node sends to the others, in GB/s."""


EVALUATE_POD_HOURS = 24
"""Longest time that KFP gives the step that evaluates."""


class AfterPlan(FrozenModel):
    """What the steps after training take. They compute on CPUs, or on a GPU where their machine has
    one."""

    held_out_rows: int
    """Rows on which base and tuned model are measured, evenly spaced over all that are held out."""
    hours: float | None
    """Of evaluation, an estimate; None on a GPU whose speed is not known."""
    cpus: int
    """Cores that a pod asks for."""
    export_bytes: int
    """Peak memory of export and its verification."""
    evaluate_bytes: int
    """Peak memory of evaluation."""


class Plan(FrozenModel):
    schema_version: Literal[1] = 1
    run: str
    method: Literal["lora", "full"]
    precision: Precision
    """Number format of weights and activations."""
    fp32_gradient_sums: bool = False
    """Whether gradients of 16 bits are summed over a step's micro-batches in fp32; else they are in
    `precision`."""
    router_loss: Literal["none", "left out"] = "none"
    """The auxiliary loss of a mixture's router: the model has none in its loss, or its config.json
    asks for it and it is left out."""
    attention: str | None = None
    """transformers' `attn_implementation`, or `conversations`
    (components/train/model/attention.py); None: what the model takes by itself."""
    loss_chunk_tokens: int | None = None
    """Trained tokens whose logits are made at a time; None where the logits of all tokens of a
    micro-batch are made at once."""
    packed: bool = True
    """Whether conversations share a row; else each row is one."""
    num_trainable: int
    """Parameters that receive gradients."""
    learning_rate: float
    """The highest, reached after the warm-up."""
    training_digest: str
    """sha256 of all that the losses follow from: equal for plans that differ only in how the work
    is spread over machines."""
    model: ModelPlan
    threads_per_process: int | None = None
    """Threads with which each training process computes on the CPU; None where only the node that
    trains can tell."""
    zero: ZeroPlan
    steps: StepPlan
    lora: LoraPlan | None
    """None when every parameter is trained."""
    checkpoints: CheckpointPlan
    verdict: str = ""
    """What the plan comes to, in one sentence."""
    cautions: tuple[str, ...] = ()
    """What is allowed, and wasteful or risky."""
    memory: MemoryPlan
    time: TimePlan | None
    """None where nothing is known of the GPU's speed."""
    hardware: HardwarePlan
    after: AfterPlan
    probe: ProbePlan | None = None
    """What three real steps took; None unless `hagane plan --probe` made this plan."""
    reasons: dict[str, str]
    """Field of the plan, dotted -> why it has this value, in one sentence."""

    def file_reason(self, file: str, field: str) -> str:
        """Why a value of `<file>.json` is as it is; of one that follows a field of the plan, that
        field's reason too."""
        why = self.reasons.get(f"files.{file}.{field}", "")
        followed = why.partition(";")[0]
        deeper = self.reasons.get(followed)
        if deeper is None:
            return why
        return f"{why}: {deeper}"

    @property
    def on_gpus(self) -> bool:
        """Whether its training processes have a GPU each."""
        return self.memory.gpu_limit is not None
