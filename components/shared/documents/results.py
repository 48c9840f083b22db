"""The JSON files in which steps after training tell what they measured: history.json,
verification.json, evaluation.json."""

import math
from typing import Literal

from pydantic import ConfigDict, Field

from components.shared.documents.fields import FrozenModel
from components.shared.documents.plan import Precision


class Measured(FrozenModel):
    """May hold NaN, written as such: a training that failed has losses that are no numbers, and a
    broken export such differences."""

    model_config = ConfigDict(ser_json_inf_nan="constants")


class StepLosses(Measured):
    step: int
    """Optimizer step, counted from 1."""
    loss: float
    """Mean over the step's rows, nats per trained token."""
    lr: float
    grad_norm: float | None
    """Before clipping. None for a step that fp16 skipped."""
    trained_tokens: int | None = None
    """Tokens with a label in the step, over all processes; None where the model's own loss does not
    count them."""


class EpochLosses(Measured):
    epoch: int
    step: int
    """The epoch's last step."""
    loss: float
    """Mean per trained token over the epoch's steps, each measured before its update."""
    held_out_loss: float | None = None
    """None where nothing is held out."""


class TrainingStart(FrozenModel):
    """One start of the training that its end goes back to: the first, and each that resumed from a
    checkpoint."""

    step: int
    """Optimizer steps made before it."""
    at: str
    """UTC, ISO 8601."""
    num_processes: int
    environment: dict[str, str] = Field(default_factory=dict)
    """What it ran on and with: processor or GPU, versions of libraries, hagane's commit."""
    start_up_s: dict[str, float] = Field(default_factory=dict)
    """Seconds of process 0 from its start to the end of its first step, by part, in order."""


class History(Measured):
    """checkpoints/history.json, written at the end of training."""

    start_held_out_loss: float | None = None
    """Before the first step; None where nothing is held out."""
    seconds: float
    tokens: int
    """Tokens of all rows of all epochs."""
    seconds_per_step: float | None = None
    """Median over the steps; None for fewer than two."""
    peak_node_bytes: int | None = None
    """Most resident memory of a node: the peaks of its processes added up, since the job was last
    started."""
    peak_gpu_bytes: int | None = None
    """Most that torch held of one GPU; None on a CPU. CUDA's and NCCL's own are not in it."""
    skipped_steps: int = 0
    """Steps that fp16 skipped since the scaled gradient overflowed: they changed no weight."""
    epochs: tuple[EpochLosses, ...]
    steps: tuple[StepLosses, ...]
    step_seconds: tuple[float | None, ...] = ()
    """Of each of `steps`, from the end of the one before; None for the first after a start."""
    part_seconds: dict[str, float] = Field(default_factory=dict)
    """Of the whole training in process 0, by part: data, forward, backward, optimizer; save is how
    long checkpoints held it, held_out how long held-out loss took."""
    starts: tuple[TrainingStart, ...] = ()
    """The first, and one after each restart."""

    @property
    def best_epoch(self) -> EpochLosses | None:
        """With the lowest held-out loss, the first of equals; None where no epoch has one."""
        measured = [
            (each.held_out_loss, each.epoch, each)
            for each in self.epochs
            if each.held_out_loss is not None and not math.isnan(each.held_out_loss)
        ]
        if measured:
            return min(measured)[2]
        return None


class BaseModel(FrozenModel):
    """base.json of an export: which model an adapter belongs to, or a full model began from."""

    hub_id: str | None = None
    commit: str | None = None
    """Of the hub; names every byte."""
    folder: str | None = None
    """Name of a local folder, without its path."""
    sha256: str | None = None
    """Of that folder: what `sha256sum config.json *.safetensors tokenizer.json | sha256sum` prints
    in it."""
    quantized_from: Precision | None = None
    """The base was held in 4 bits (NF4) while the adapter was trained, made from weights in this
    number format; None where it was held as it is."""

    def is_same_model(self, other: "BaseModel") -> bool:
        """However it was held."""
        same = {"quantized_from": None}
        return self.model_copy(update=same) == other.model_copy(update=same)

    @property
    def label(self) -> str:
        """For people: hub id and commit, or folder and digest."""
        if self.hub_id is not None:
            return f"{self.hub_id} at commit {self.commit}"
        return f"the folder {self.folder} with sha256 {self.sha256}"


class Difference(Measured):
    """How far logits are from the probe's, in standard deviations of the probe's logits."""

    max: float
    """Over all positions and tokens of the vocabulary."""
    rms: float
    same_choice: int
    """Positions at which both have their highest logit at the same token."""


class Verification(Measured):
    """verification.json beside an export: its logits, computed by plain libraries in a fresh
    process, against the trained model's."""

    passed: bool
    problems: tuple[str, ...]
    precision: Literal["bf16", "fp32"]
    """Number format that the judged logits were computed in."""
    num_tokens: int
    """Positions compared, of all prompts."""
    num_prompts: int = 1
    num_ends: int = 0
    """Prompts at whose end a turn should end."""
    num_stops: int = 0
    """Of those, prompts after which the export generated its end token and stopped."""
    vocabulary: int
    logits_std: float
    """Standard deviation of the probe's logits: the unit of every difference here."""
    tolerance_max: float
    tolerance_rms: float
    tolerance_reason: str
    exported: Difference
    """The export in `precision`: this one is judged."""
    exported_fp32: Difference
    """The export in fp32, whatever the precision."""
    base: Difference
    """The model before training, in `precision`: what an export without effect would show."""
    files: dict[str, str] = Field(default_factory=dict)
    """sha256 of every file that was loaded, by its name in the export."""


class Score(FrozenModel):
    """A value measured on held-out conversations."""

    value: float
    low: float | None = None
    high: float | None = None
    """95 % confidence interval, the conversations being the sample; None where it cannot be known,
    as with one conversation."""


class Measure(FrozenModel):
    loss: float
    """Nats per trained token of the held-out conversations."""
    perplexity: float
    num_tokens: int
    scores: dict[str, Score] = Field(default_factory=dict)
    """Metric -> its value. Empty in an evaluation of hagane 0.1.0 or before."""


class Comparison(FrozenModel):
    """The tuned model beside another one, by one metric."""

    metric: str
    against: Literal["base", "published"]
    other: float
    tuned: float
    improvement: Score
    """Positive where the tuned model is better. Its interval is of the differences within each
    conversation."""


class RuleResult(FrozenModel):
    rule: str
    """In words."""
    met: bool
    found: str
    """The numbers, in words."""


class GateResult(FrozenModel):
    """What came of the spec's `gate`."""

    rules: tuple[RuleResult, ...]

    @property
    def met(self) -> bool:
        return all(rule.met for rule in self.rules)

    @property
    def not_met(self) -> list[str]:
        """A line for each rule that is not met."""
        return [f"gate: {rule.rule}: found {rule.found}" for rule in self.rules if not rule.met]


class Answer(FrozenModel):
    question: str
    base: str
    tuned: str


class Evaluation(FrozenModel):
    """evaluation.json."""

    base: Measure | None
    tuned: Measure | None
    """Both None where nothing is held out."""
    answers: tuple[Answer, ...]
    improved: bool | None
    """The tuned model's held-out loss is below the base's; None where nothing is held out."""
    measured_rows: int | None = None
    num_conversations: int | None = None
    """Held-out conversations that were measured."""
    comparisons: tuple[Comparison, ...] = ()
    gate: GateResult | None = None
    """None in an evaluation of hagane 0.1.0 or before."""
    published: str | None = None
    """The published version that was measured too, such as `support v3`; None where no rule is
    against it, or nothing is published."""
    held_out_rows: int | None = None
    """Of these, `measured_rows` were measured; None in a run of hagane 0.1.0 or before, which
    measured all."""

    @property
    def both(self) -> tuple[Measure, Measure] | None:
        """Base and tuned model; None where nothing is held out."""
        if self.base is None or self.tuned is None:
            return None
        return (self.base, self.tuned)

    @property
    def part(self) -> str:
        """Such as ` (30 of 512 rows)`; empty when all were measured."""
        if self.measured_rows == self.held_out_rows:
            return ""
        return f" ({self.measured_rows:,} of {self.held_out_rows:,} rows)"
