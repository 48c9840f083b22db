"""The spec: what a person asked of one run. Every field's docstring is the documentation users read.

Parsing (YAML, `--set`, all errors at once, with line numbers) is in spec_file.py.
"""

import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from components.shared.documents.fields import FrozenModel, Number
from components.shared.printable import cut, shown
from components.shared.spec.gate import GateRule, MeasuredOnAnswers, auto_or_rules, checked_pattern, is_on_answers

__all__ = ["FrozenModel", "GateRule", "Number"]  # the home of the spec's own types is here for all readers


NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$"
OBJECT_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
"""Name of an object of Kubernetes: an RFC 1123 subdomain."""
USER_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
MOST_ROWS = 1_048_576
"""Of a batch, and of what is measured: more is a slip of the hand, and overflows what is counted from it."""
MOST_MINUTES = 525_600
"""A year."""
PUBLISHED = "published"
"""Folder beside the runs: no run has this name."""
TARGET_WORDS = ("auto", "all", "attention", "mlp")


def _word_or_names(value: object) -> object:
    if value in TARGET_WORDS:
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError(f"got {shown(value)}, must be {', '.join(TARGET_WORDS)} or a list of layer names")


def _auto_or_whole(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_ROWS):
        return value
    raise ValueError(f"got {shown(value)}, must be auto or a whole number from 1 to {MOST_ROWS}")


def _auto_or_row_tokens(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 16 <= value <= MOST_ROWS):
        return value
    raise ValueError(f"got {shown(value)}, must be auto or a whole number from 16 to {MOST_ROWS}")


def _auto_or_bool(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError(f"got {shown(value)}, must be auto, true or false")


def _last_best_or_epoch(value: object) -> object:
    if value in ("last", "best") or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000):
        return value
    raise ValueError(f"got {shown(value)}, must be last, best or the number of an epoch")


def _auto_zero(value: object) -> object:
    """`zero: auto` stands for a section without fields."""
    return {} if value == "auto" else value


class ModelSpec(FrozenModel):
    source: str = Field(min_length=1)
    """The base model: a folder in Hugging Face layout (config.json, tokenizer.json, *.safetensors), or a hub id such as
    `cyberagent/open-calm-7b`."""
    revision: str | None = None
    """Hub commit, tag or branch. Only for a hub id; the commit it stands for is written into the dataset's manifest."""


RecordForm = Literal["auto", "messages", "sharegpt", "oasst_tree", "alpaca", "ichikara", "prompt_completion", "text", "tokens"]
"""How a record says its conversation; components/prepare_dataset/records/forms.py has the columns of each."""


class SourceSpec(FrozenModel):
    path: str = Field(min_length=1)
    """A file, folder, pattern, `s3://…` or `hf://owner/name@revision`, as the short form of `data.train` takes it."""
    split: str | None = Field(default=None, min_length=1)
    """Only the files of this split, such as `train`: files or folders with that word in their name, as `datasets` names them."""
    format: RecordForm | None = None
    """In place of `data.format`."""
    columns: dict[str, str] | None = None
    """In place of `data.columns`."""
    encoding: str | None = None
    """In place of `data.encoding`."""
    repeat: Number = Field(default=1, gt=0, le=100)
    """How often the source is trained on in an epoch: 2 is twice, 0.5 is half of it, chosen by a hash."""
    weight: Number | None = Field(default=None, gt=0, le=1e6)
    """Share of the source in the training text, beside the weights of the others; all sources have one or none. The source
    with the least text for its weight is used whole, a part of each other one, chosen by a hash."""


def _path_or_sources(value: object) -> str | tuple[SourceSpec, ...]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, (list, tuple)) and value:
        sources = tuple(_source(item, number) for number, item in enumerate(value, start=1))
        _all_weigh_or_none(sources)
        return sources
    raise ValueError(f"got {shown(value)}, must be a path, or a list of sources such as {{path: train.jsonl, format: alpaca, repeat: 2}}")


def _source(value: object, number: int) -> SourceSpec:
    try:
        return SourceSpec.model_validate({"path": value} if isinstance(value, str) else value)
    except ValidationError as error:
        first = error.errors()[0]
        where = cut(".".join(str(part) for part in first["loc"]))
        allowed = ", ".join(SourceSpec.model_fields)
        found = shown(first["input"], name=where)
        raise ValueError(f"source {number}: {where}: got {found}: {cut(first['msg'])}; fields: {allowed}") from None


def _all_weigh_or_none(sources: tuple[SourceSpec, ...]) -> None:
    without = [number for number, source in enumerate(sources, start=1) if source.weight is None]
    if without and len(without) < len(sources):
        raise ValueError(f"source {without[0]}: has no weight, others have one; give each source a weight, or none")


def _path_or_whole_sources(value: object) -> object:
    """Held-out records are measured once each."""
    sources = _path_or_sources(value)
    for number, source in enumerate(sources if isinstance(sources, tuple) else (), start=1):
        name = "weight" if source.weight is not None else "repeat" if source.repeat != 1 else None
        if name is not None:
            raise ValueError(f"source {number}: {name}: not for held-out sources, each record of which is measured once; remove it")
    return sources


Sources = Annotated[str | tuple[SourceSpec, ...], BeforeValidator(_path_or_sources)]
HeldOutSources = Annotated[str | tuple[SourceSpec, ...], BeforeValidator(_path_or_whole_sources)]


def _long_form(sources: str | tuple[SourceSpec, ...]) -> tuple[SourceSpec, ...]:
    return (SourceSpec(path=sources),) if isinstance(sources, str) else sources


class DataSpec(FrozenModel):
    train: Sources
    """Training conversations: a file (JSONL, a JSON list, CSV, TSV, Parquet, Arrow; also .gz or .zst), a folder of such, a
    pattern such as `data/*.jsonl`, the same in a store (`s3://bucket/train.jsonl`), or a data set of the hub
    (`hf://owner/name@revision`). Or a list of such sources, each with the fields of `data.train[]`."""
    held_out: HeldOutSources | None = None
    """Conversations never trained on, named as in `train`, without `repeat` and `weight`. Without it, `held_out_share` of
    `train` is set aside."""
    held_out_share: Number = Field(default=0.05, ge=0, lt=0.5)
    """Share of `train` set aside when `held_out` is absent, chosen by a hash: the same every time. 0 trains on everything: there
    is no held-out loss then, so `evaluation.must_improve` fails no run and no checkpoint is known as the best."""
    held_out_by: Literal["prompt", "conversation"] = "prompt"
    """What the hash is of: `prompt` keeps conversations with the same first question on one side, so that no held-out
    question is trained on."""
    format: RecordForm = "auto"
    """Form of the records. `auto` recognises it by the keys of the first record: `messages` (OpenAI), `sharegpt`, `alpaca`
    (also dolly), `prompt_completion`, `ichikara`, `oasst_tree`, `text` (continued pretraining: every token is trained on),
    `tokens` (rows tokenised elsewhere: `input_ids`, `labels`)."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Keys of the file under other names than the form's, such as `{prompt: title, completion: body}`."""
    encoding: str = "utf-8"
    """Character encoding of text files, such as `cp932`."""
    on_bad_record: Literal["fail", "skip"] = "fail"
    """What becomes of a record that is no conversation, or that the template refuses: `fail` stops before training with all that
    are bad, `skip` leaves them out, counts them, and shows them with the reasons."""
    max_bad_records: int = Field(default=100, ge=1, le=1_000_000_000)
    """Most records that `on_bad_record: skip` leaves out; with more the run stops before training."""
    row_tokens: Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_row_tokens)] = 1024
    """Most tokens in one row, or `auto`: the least that holds the longest conversation, or with `too_long: drop` 99 % of the
    tokens, as far as the model knows positions; a power of two from 1,024 on where rows are packed. A row holds whole
    conversations: none is split, none sees another. Training measures that on the loaded model before its first step, and stops
    where it is not so."""
    packing: Annotated[Literal["auto"] | bool, BeforeValidator(_auto_or_bool)] = "auto"
    """Whether conversations share a row. `auto`: wherever the model keeps them apart (docs/packing.md). Else, and with `false`, a row
    is one conversation, padded to the longest of its micro-batch; `training.global_batch` then counts conversations."""
    chat_template: str = "model"
    """`model` takes the template that the tokenizer brings; anything else is the path or URI of a Jinja file, for models that
    bring none."""
    template_args: dict[str, Any] = Field(default_factory=dict)
    """Further variables of the chat template, such as `{enable_thinking: false}`."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What becomes of a conversation longer than `row_tokens`: `refuse` stops before training, `drop` leaves it out and counts it."""

    @property
    def train_sources(self) -> tuple[SourceSpec, ...]:
        """`train` in its long form."""
        return _long_form(self.train)

    @property
    def held_out_sources(self) -> tuple[SourceSpec, ...]:
        """`held_out` in its long form; none where a share of `train` is set aside."""
        return () if self.held_out is None else _long_form(self.held_out)

    @property
    def train_name(self) -> str:
        """`train` for messages: its paths."""
        return ", ".join(source.path for source in self.train_sources)

    @property
    def holds_out(self) -> bool:
        """Whether anything is kept from training, to measure the model on."""
        return self.held_out is not None or self.held_out_share > 0

    @property
    def held_out_name(self) -> str | None:
        """`held_out` for messages: its paths."""
        return ", ".join(source.path for source in self.held_out_sources) or None


Attention = Literal["auto", "conversations", "sdpa", "eager", "flash_attention_2", "flex_attention"]


class TrainingSpec(FrozenModel):
    method: Literal["lora", "full"] = "lora"
    """`lora` trains small matrices beside the frozen base; `full` trains every parameter."""
    epochs: int = Field(default=3, ge=1, le=1000)
    """Passes over the training rows. A checkpoint is stored at the end of each."""
    global_batch: int = Field(default=8, ge=1, le=MOST_ROWS)
    """Rows per optimizer step, over all processes. Must be a multiple of `micro_batch` times the number of processes."""
    micro_batch: Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_whole)] = "auto"
    """Rows per process in one forward pass: the memory knob. `auto` is the most that fits the hardware. What is missing to
    `global_batch` is accumulated."""
    max_steps: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Stop after so many optimizer steps, in the middle of an epoch if need be. Without it, all `epochs` are trained."""
    drop_last: bool = False
    """Leave out the last rows of an epoch when they do not fill a micro-batch on every process."""
    lr_peak: Number = Field(default=2e-4, gt=0, le=1)
    """Highest learning rate, reached after the warm-up."""
    lr_schedule: Literal["cosine", "linear", "constant_with_warmup", "cosine_with_min_lr", "warmup_stable_decay"] = "cosine"
    """How the learning rate falls after the warm-up. `warmup_stable_decay` stays at `lr_peak` and falls over the last
    `lr_decay_share` of all steps."""
    lr_min_share: Number = Field(default=0.1, ge=0, lt=1)
    """Share of `lr_peak` at which `cosine_with_min_lr` and `warmup_stable_decay` end."""
    lr_decay_share: Number = Field(default=0.2, gt=0, le=1)
    """Share of all steps over which `warmup_stable_decay` falls."""
    warmup_share: Number = Field(default=0.05, ge=0, lt=1)
    """Share of all steps during which the learning rate rises in equal parts to `lr_peak`. The first step trains, with one part."""
    weight_decay: Number = Field(default=0.0, ge=0, lt=1)
    """AdamW's decoupled weight decay, per unit of learning rate. Norms, biases and the state of recurrent layers do not decay."""
    clip_norm: Number = Field(default=1.0, gt=0, le=1e9)
    """Largest norm of the gradient over all trainable parameters."""
    label_smoothing: Number = Field(default=0.0, ge=0, lt=1)
    """Share of each trained token's target that is spread over the whole vocabulary (Szegedy et al. 2015, arXiv 1512.00567, section 7).
    The held-out loss is without it."""
    neftune_alpha: Number | None = Field(default=None, gt=0, le=1000)
    """Noise on token embeddings during training, uniform up to alpha / sqrt(tokens x hidden size) (NEFTune, arXiv 2310.05914)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of weights and activations in the forward and backward pass: `auto` is bf16 where the machine computes it
    fast, else fp32. Optimizer state is fp32 either way."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third more compute for much less memory."""
    attention: Attention = "auto"
    """How the tokens of a packed row look at each other. `conversations` computes each conversation by itself with torch's kernels,
    without a mask over the whole row; the others are transformers' `attn_implementation`, the last two of them for GPUs. `auto` is
    `conversations` where docs/packing.md has it, else what the model takes by itself."""
    output_layer: Literal["auto", "trained_tokens", "all_tokens"] = "auto"
    """Where logits and loss are computed: `trained_tokens` only at tokens that are trained, in chunks, with the same result;
    `all_tokens` makes the logits of whole rows at once. `auto` takes what needs less memory."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of LoRA's start values, of dropout and of the order of rows."""


class LoraSpec(FrozenModel):
    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the update matrices: trainable parameters grow in proportion."""
    alpha: Number = Field(default=32.0, gt=0, le=1e6)
    """The update is scaled by alpha / rank (Hu et al. 2021, arXiv 2106.09685, section 4.1)."""
    rslora: bool = False
    """Scale it by alpha / sqrt(rank) instead, so that larger ranks learn as fast (rsLoRA, arXiv 2312.03732)."""
    dropout: Number = Field(default=0.0, ge=0, lt=1)
    """Share of a LoRA layer's inputs set to zero during training."""
    targets: Annotated[Literal["auto", "all", "attention", "mlp"] | tuple[str, ...], BeforeValidator(_word_or_names)] = "auto"
    """Layers that get an update: `auto` (or `all`) takes every linear layer of the blocks and experts' weights, never the head or a
    router; `attention` and `mlp` take that part of them; or a list of layer names and these words."""


class ZeroSpec(FrozenModel):
    """`zero: auto` leaves all three open: the plan takes the first that fits the hardware, in the order in which they slow training."""

    stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """DeepSpeed ZeRO stage: what is divided among processes. 0 nothing, 1 optimizer state, 2 also gradients, 3 also parameters.
    fp16 needs 1 or higher."""
    offload_optimizer: Literal["auto", "none", "cpu"] = "auto"
    """Where optimizer state lives: `cpu` is host memory, and the step is computed there. Needs stage 1 or higher."""
    offload_parameters: Literal["auto", "none", "cpu"] = "auto"
    """Where parameters live between uses. `cpu` needs stage 3, and the optimizer's state there too."""

    @model_validator(mode="after")
    def _offload_has_its_stage(self) -> Self:
        if self.offload_parameters == "cpu" and self.stage not in ("auto", 3):
            raise ValueError(f"offload_parameters 'cpu' needs stage 3, found {self.stage}; set offload_parameters: none")
        if self.offload_parameters == "cpu" and self.offload_optimizer == "none":
            raise ValueError("offload_parameters 'cpu' needs offload_optimizer 'cpu', found 'none'; set both or neither")
        if self.offload_optimizer == "cpu" and self.stage == 0:
            raise ValueError("offload_optimizer 'cpu' needs stage 1, 2 or 3, found 0; set offload_optimizer: none")
        return self


class HardwareSpec(FrozenModel):
    """What the plan may count on. What is left out is taken from the named GPU or, where training is local, from the machine that plans.

    Of a cluster's nodes only the spec can tell: a GPU, its memory, or `host_memory_gib` must be stated."""

    num_nodes: int = Field(default=1, ge=1, le=1024)
    """Machines, or pods, that train together."""
    processes_per_node: int = Field(default=1, ge=1, le=64)
    """Training processes on each: one per GPU, or on a CPU one per group of cores."""
    gpu: str | None = None
    """The GPU by name, such as `a100-80gb`: its memory and speed. Without it, and without `gpu_memory_gib`, training is on the CPU."""
    gpu_memory_gib: Number | None = Field(default=None, ge=0.001, le=1e9)
    """Memory of one GPU in GiB, where the name does not say it, or less of it is to be used."""
    tflops: Number | None = Field(default=None, ge=0.001, le=1e9)
    """Dense bf16 TFLOP/s of one GPU by its data sheet, for a GPU that the plan does not know by name; needs `gpu_memory_gib`."""
    network_gbit_s: Number | None = Field(default=None, ge=0.001, le=1e9)
    """What one node sends to others, in Gbit/s: all its network cards together. Without it, 100."""
    host_memory_gib: Number | None = Field(default=None, ge=0.001, le=1e9)
    """Memory of one node in GiB that the run may use: what CPU offload spends. GPUs offload, and a cluster's CPUs train, only with it."""
    memory_margin: Number = Field(default=0.1, ge=0, lt=0.9)
    """Share of GPU and host memory that the plan leaves free, for what no formula sees."""
    price_per_gpu_hour: Number | None = Field(default=None, ge=0, le=1e9)
    """Price of one GPU for an hour, in any currency: the plan then tells what the run costs."""

    @property
    def names_gpu(self) -> bool:
        """Whether training is on GPUs: on a machine or in a cluster, no plan is made for one that the spec does not tell of."""
        return self.gpu is not None or self.gpu_memory_gib is not None


class KeepSpec(FrozenModel):
    """Which epochs' checkpoints stay in the store; what any of these names stays. With none of them set, all stay."""

    last: int | None = Field(default=None, ge=1, le=1_000_000)
    """The newest so many epochs. The newest of all always stays."""
    best: int | None = Field(default=None, ge=1, le=1_000_000)
    """The so many epochs with the lowest held-out loss."""
    every: int | None = Field(default=None, ge=1, le=1_000_000)
    """Each epoch whose number is a multiple of this."""


class CheckpointSpec(FrozenModel):
    every_minutes: Number | None = Field(default=None, gt=0, le=MOST_MINUTES)
    """Also store a checkpoint between epochs when so many minutes went by since the last one. It goes when a newer one is there."""
    keep: KeepSpec = KeepSpec()
    """Which checkpoints stay. An older one is removed only after a newer one is committed."""
    grace_seconds: int = Field(default=30, ge=0, le=3600)
    """Seconds between SIGTERM and SIGKILL when a machine is taken away. A checkpoint is stored within them if the plan says it fits."""
    upload_mb_s: Number = Field(default=100, ge=0.001, le=1e6)
    """Megabytes a second that a node surely uploads to the store: what the plan counts on for `grace_seconds` and for its estimate
    of time."""
    on_failure: Literal["stop", "continue"] = "stop"
    """What training does when a checkpoint cannot be written (disk full) or stored (store gone): stop at once, or tell it and go
    on. The last epoch's must be stored either way."""


class ResumeSpec(FrozenModel):
    on_damage: Literal["fail", "previous"] = "fail"
    """When the newest committed checkpoint is not what its manifest says: stop and name the file, or set the checkpoint aside and
    take the one before."""


class EvaluationSpec(FrozenModel):
    questions: tuple[str, ...] = ()
    """Questions put to the base and to the tuned model, answered greedily; shown side by side in the report."""
    answer_tokens: int = Field(default=64, ge=1, le=4096)
    """Longest answer, in tokens."""
    rows: Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_whole)] = "auto"
    """Held-out rows on which base and tuned model are measured, or all when there are fewer. `auto`: as many as the step's CPUs
    measure in about four hours. Training's own held-out loss is of all rows."""
    must_improve: bool = True
    """Fail the run when a rule of `gate` is not met. `false` only reports it; such a run is never published."""
    metrics: tuple[MeasuredOnAnswers, ...] = ()
    """Also measured, on answers that the models generate to held-out prompts: `exact_match` and `rouge_l` compare them with the
    data's own last turn, `json` is the share that is valid JSON, `pattern` the share in which `evaluation.pattern` is found."""
    pattern: Annotated[str | None, BeforeValidator(checked_pattern)] = None
    """A regular expression of Python."""
    references: int = Field(default=64, ge=1, le=MOST_ROWS)
    """Held-out conversations whose last turn is generated for `metrics`, or all when there are fewer."""


class ExportSpec(FrozenModel):
    checkpoint: Annotated[Literal["last", "best"] | int, BeforeValidator(_last_best_or_epoch)] = "last"
    """Which committed checkpoint is exported: the last epoch's, that with the lowest held-out loss (which `checkpoints.keep` must
    keep), or an epoch's by its number."""
    merge: Annotated[Literal["auto"] | bool, BeforeValidator(_auto_or_bool)] = "auto"
    """Also export the base with the adapter merged into it, as `merged/`, verified like the adapter. `auto` does so where vLLM loads no
    adapter of the architecture. Takes the base's size once more in the store. Experts' weights cannot be merged."""


class PublishSpec(FrozenModel):
    name: str | None = Field(default=None, pattern=NAME_PATTERN)
    """Publish the verified export under this name in the store, as its next version, when every rule of `gate` is met:
    `<store>/published/<name>/v0001`, and `latest.json` beside it then names that version. Without it, nothing is published."""


class ClusterSpec(FrozenModel):
    """The training job in a Kubernetes cluster; without effect where the backend is `local`. Secrets stand here by name only."""

    namespace: str | None = Field(default=None, pattern=OBJECT_PATTERN)
    """Namespace of the job: without it, that of the launcher's pod or of the kubeconfig in use."""
    service_account: str = Field(default="hagane-worker", pattern=OBJECT_PATTERN)
    """Account of the workers, which needs no right in the cluster; a cloud's role for the store may hang on it."""
    config_maps: tuple[str, ...] = ("hagane",)
    """ConfigMaps whose entries are environment variables of the workers, such as the store's endpoint; one that is not there is
    passed over."""
    secrets: tuple[str, ...] = ("hagane-s3",)
    """Secrets whose entries are environment variables of the workers, such as the store's keys; one that is not there is passed over."""
    claims: dict[str, str] = Field(default_factory=dict)
    """PersistentVolumeClaim: folder where the workers see it, read-only. For models that lie in the cluster."""
    work_claim: str | None = Field(default=None, pattern=OBJECT_PATTERN)
    """PersistentVolumeClaim for the workers' scratch files; without it they are on the node's disk, with a limit from the plan."""
    cpus: Number | None = Field(default=None, ge=0.001, le=10_000)
    """CPU cores that each pod requests. Without it, 4 for each GPU; on CPUs, none."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of a GPU among a node's resources."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints that the pods tolerate, as Kubernetes writes them: spot nodes often have one. Pods with GPUs also tolerate nvidia.com/gpu."""
    affinity: dict[str, Any] = Field(default_factory=dict)
    """Affinity of the pods, as Kubernetes writes it."""
    priority_class: str | None = Field(default=None, pattern=OBJECT_PATTERN)
    """PriorityClass of the pods."""
    queue: str | None = Field(default=None, pattern=OBJECT_PATTERN)
    """Kueue's LocalQueue: the job is made suspended and waits there."""
    gang: bool = False
    """Let a gang scheduler start all pods at once or none. A TrainJob leaves that to its runtime."""
    runtime: str = Field(default="hagane", pattern=OBJECT_PATTERN)
    """Of a TrainJob: its runtime. `hagane` is the namespace's TrainingRuntime of k8s/overlays/trainjob; any other name is a
    ClusterTrainingRuntime, such as Trainer's torch-distributed, which does not keep `max_restarts`."""
    user: str | None = Field(default=None, pattern=USER_PATTERN)
    """Whose run it is: a label of job and pods, `hagane.dev/user`, of letters, digits, dots, hyphens, underscores."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Further labels of job and pods, such as a team or cost centre."""
    max_restarts: int = Field(default=10, ge=0, le=1_000_000)
    """How often the pods may be started anew after a lost node or peer; a fourth in a row without a step made ends the job sooner."""
    queue_timeout_minutes: Number = Field(default=720, gt=0, le=MOST_MINUTES)
    """Longest wait until all pods have a node."""
    start_timeout_minutes: Number = Field(default=30, gt=0, le=MOST_MINUTES)
    """Longest wait from then on until training begins: images pulled, weights loaded, all processes met."""
    stall_timeout_minutes: Number = Field(default=30, gt=0, le=MOST_MINUTES)
    """Longest time without a step made, once training has begun."""
    run_timeout_hours: Number | None = Field(default=None, gt=0, le=MOST_MINUTES / 60)
    """Longest time that the job may run in all."""
    keep_finished_hours: Number = Field(default=24, ge=0, le=MOST_MINUTES / 60)
    """How long the finished job stays to be looked at."""
    patch: dict[str, Any] = Field(default_factory=dict)
    """Changes to the job's manifest: mappings merge, lists of named things merge by name, null removes. The cluster is asked what it
    would keep of it before anything is made."""
    pod_patch: dict[str, Any] = Field(default_factory=dict)
    """The same for each pod's template. Refused in both: privileged containers, paths, ports and namespaces of the node, and another
    account than `service_account`."""


HOW_NOT_WHAT = (
    *("hardware", "zero", "checkpoints", "resume", "cluster", "export", "gate", "publish"),
    *("training.micro_batch", "training.gradient_checkpointing", "training.output_layer", "training.attention"),
)
"""Fields that say how a run is worked, not what comes of it: they may change while it is under way."""


class RunSpec(FrozenModel):
    name: str = Field(pattern=NAME_PATTERN)
    """Name of the run: its folder in the store, its job in the cluster. Small letters, digits, hyphens; at most 50."""
    store: str = Field(min_length=1)
    """Where everything of the run goes: a folder, or `s3://bucket/prefix`. Endpoint and keys of S3 come from the usual AWS_ variables."""
    backend: Literal["local", "pytorchjob", "trainjob"] = "local"
    """What starts the training processes: `local` on this machine, `pytorchjob` a Kubeflow PyTorchJob in a cluster, `trainjob` a TrainJob
    of Kubeflow Trainer 2."""
    model: ModelSpec
    data: DataSpec
    training: TrainingSpec = TrainingSpec()
    lora: LoraSpec = LoraSpec()
    zero: Annotated[ZeroSpec, BeforeValidator(_auto_zero)] = ZeroSpec()
    hardware: HardwareSpec = HardwareSpec()
    checkpoints: CheckpointSpec = CheckpointSpec()
    resume: ResumeSpec = ResumeSpec()
    cluster: ClusterSpec = ClusterSpec()
    export: ExportSpec = ExportSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    gate: Annotated[Literal["auto"] | tuple[GateRule, ...], BeforeValidator(auto_or_rules)] = "auto"
    """What a tuned model must show. `auto`: its held-out loss is below the base's by more than noise. Or a list of rules such as
    `{metric: token_accuracy, improve_by: 0.02}`, `{metric: loss, against: published, improve_by: noise}` (the version that is
    published as `publish.name` now), `{metric: json, at_least: 0.95}`; `[]` asks for nothing (docs/result.md)."""
    publish: PublishSpec = PublishSpec()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.name == PUBLISHED:
            raise ValueError(f"name {self.name!r} is the folder of published models in the store; set another name")
        if self.compares_with_published and self.publish.name is None:
            raise ValueError("a rule of gate is against 'published', but publish.name is not set; set it to the published model's name")
        if not self.data.holds_out and (self.gate_rules or self.evaluation.metrics):
            raise ValueError(
                "gate and evaluation.metrics measure held-out conversations, but data.held_out_share is 0; remove them, or hold out a share"
            )
        if "pattern" in self.metrics_on_answers and self.evaluation.pattern is None:
            raise ValueError("the metric 'pattern' needs evaluation.pattern, a regular expression; set it")
        return self

    @property
    def gate_rules(self) -> tuple[GateRule, ...]:
        if self.gate == "auto":
            return (GateRule(metric="loss"),) if self.data.holds_out else ()
        return self.gate

    @property
    def compares_with_published(self) -> bool:
        return any(rule.against == "published" for rule in self.gate_rules)

    @property
    def metrics_on_answers(self) -> tuple[MeasuredOnAnswers, ...]:
        """Of the evaluation and of the gate's rules, each once."""
        found: list[MeasuredOnAnswers] = list(self.evaluation.metrics)
        for rule in self.gate_rules:
            if is_on_answers(rule.metric) and rule.metric not in found:
                found.append(rule.metric)
        return tuple(dict.fromkeys(found))

    @model_validator(mode="after")
    def _best_is_measured(self) -> Self:
        if self.checkpoints.keep.best is not None and not self.data.holds_out:
            raise ValueError(
                f"checkpoints.keep.best: got {self.checkpoints.keep.best}, but data.held_out_share is 0, so no held-out loss says which "
                "checkpoint is best; remove it, or hold out a share"
            )
        return self

    @model_validator(mode="after")
    def _exported_is_kept(self) -> Self:
        wanted, keep = self.export.checkpoint, self.checkpoints.keep
        if wanted == "best" and not self.data.holds_out:
            raise ValueError(
                "export.checkpoint: got 'best', but data.held_out_share is 0, so no held-out loss says which checkpoint is best; "
                "set last, or hold out a share"
            )
        if wanted == "best" and keep != KeepSpec() and keep.best is None and keep.every != 1:
            raise ValueError("export.checkpoint: got 'best', but checkpoints.keep may remove that one; set checkpoints.keep.best: 1")
        if isinstance(wanted, int) and wanted > self.training.epochs:
            raise ValueError(
                f"export.checkpoint: got {wanted}, must be last, best or an epoch up to training.epochs, {self.training.epochs}"
            )
        return self

    @property
    def run_uri(self) -> str:
        """Folder of the run in the store: `<store>/<name>`."""
        return f"{self.store.rstrip('/')}/{self.name}"

    @property
    def digest(self) -> str:
        """sha256, in hex, of the spec with every default filled in: equal for specs that ask the same."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
