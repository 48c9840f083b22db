"""`checkpoints`, `resume`, `evaluation`, `export` and `publish` of the spec: what a run keeps."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from components.shared.documents.fields import FrozenModel, Number
from components.shared.printable import shown
from components.shared.spec.gate import MeasuredOnAnswers, checked_pattern
from components.shared.spec.values import (
    MOST_MINUTES,
    MOST_ROWS,
    NAME_PATTERN,
    TASK_PATTERN,
    auto_or_bool,
    auto_or_whole,
)


def _last_best_or_epoch(value: object) -> object:
    if value in ("last", "best") or (
        isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000
    ):
        return value
    raise ValueError(f"got {shown(value)}, must be last, best or the number of an epoch")


class KeepSpec(FrozenModel):
    """Which epochs' checkpoints stay in the store; what any of these names stays. With none of them
    set, all stay."""

    last: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many of the newest epochs stay. The newest of all always stays; with no field of `keep`
    set, all stay."""
    best: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many of the epochs with the lowest held-out loss stay."""
    every: int | None = Field(default=None, ge=1, le=1_000_000)
    """Each epoch whose number is a multiple of this."""


class CheckpointSpec(FrozenModel):
    every_minutes: Number | None = Field(default=None, gt=0, le=MOST_MINUTES)
    """Also store a checkpoint between epochs when this many minutes went by since the last one. It
    goes when a newer one is there."""
    keep: KeepSpec = KeepSpec()
    """Which checkpoints stay. An older one is removed only after a newer one is committed."""
    grace_seconds: int = Field(default=30, ge=0, le=3600)
    """Seconds between SIGTERM and SIGKILL when a machine is taken away. A checkpoint is stored
    within them if the plan says it fits."""
    upload_mb_s: Number = Field(default=100, ge=0.001, le=1e6)
    """Megabytes a second that a node surely uploads to the store: what the plan counts on for
    `grace_seconds` and for its estimate of time."""
    on_failure: Literal["stop", "continue"] = "stop"
    """What training does when a checkpoint cannot be written (disk full) or stored (store gone):
    stop at once, or tell it and go on. The last epoch's must be stored either way."""


class ResumeSpec(FrozenModel):
    on_damage: Literal["fail", "previous"] = "fail"
    """When the newest committed checkpoint is not what its manifest says: stop and name the file,
    or set the checkpoint aside and take the one before."""


class LmEvalSpec(FrozenModel):
    """Benchmarks of lm-evaluation-harness, for the base and the tuned model."""

    tasks: tuple[Annotated[str, Field(pattern=TASK_PATTERN)], ...] = ()
    """Tasks or groups of lm-evaluation-harness, such as `arc_easy`: base and tuned model are
    measured by them, and rules of `gate` may name their metrics (`arc_easy/acc`). The Python
    package `lm_eval` must be where the step evaluate runs (docs/result.md)."""
    folder: str | None = Field(default=None, min_length=1)
    """A folder with the YAML files of more tasks, as `--include_path` of lm_eval. Python that these
    files name is run."""
    limit: int | None = Field(default=None, ge=1, le=MOST_ROWS)
    """Only the first documents of each task. All of them take hours on CPUs, and no plan estimates
    them."""
    chat_template: bool = False
    """Put each prompt through the run's chat template (`data.chat_template`), as
    `--apply_chat_template` of lm_eval."""


class EvaluationSpec(FrozenModel):
    questions: tuple[str, ...] = ()
    """Questions put to the base and to the tuned model, answered greedily; shown side by side in
    the report."""
    answer_tokens: int = Field(default=64, ge=1, le=4096)
    """Longest answer, in tokens."""
    rows: Annotated[Literal["auto"] | int, BeforeValidator(auto_or_whole(1))] = "auto"
    """Held-out rows on which base and tuned model are measured, or all when there are fewer.
    `auto`: as many as the step's CPUs measure in about four hours. Training's own held-out loss is
    of all rows."""
    must_improve: bool = True
    """Fail the run when a rule of `gate` is not met. `false` only reports it; such a run is never
    published."""
    metrics: tuple[MeasuredOnAnswers, ...] = ()
    """Also measured, on answers that the models generate to held-out prompts: `exact_match` and
    `rouge_l` compare them with the data's own last turn, `json` is the share that is valid JSON,
    `pattern` the share in which `evaluation.pattern` is found."""
    pattern: Annotated[str | None, BeforeValidator(checked_pattern)] = None
    """A regular expression of Python."""
    references: int = Field(default=64, ge=1, le=MOST_ROWS)
    """Held-out conversations whose last turn is generated for `metrics`, or all when there are
    fewer."""
    lm_eval: LmEvalSpec = LmEvalSpec()
    """Benchmarks of lm-evaluation-harness."""


class ExportSpec(FrozenModel):
    checkpoint: Annotated[Literal["last", "best"] | int, BeforeValidator(_last_best_or_epoch)] = (
        "last"
    )
    """Which committed checkpoint is exported: the last epoch's, that with the lowest held-out loss
    (which `checkpoints.keep` must keep), or an epoch's by its number."""
    merge: Annotated[Literal["auto"] | bool, BeforeValidator(auto_or_bool)] = "auto"
    """Also export the base with the adapter merged into it, as `merged/`, verified like the
    adapter. `auto` does so where vLLM loads no adapter of the architecture, or none with trained
    embeddings, head or new tokens. Takes the base's size once more in the store. Experts' weights
    cannot be merged."""


class PublishSpec(FrozenModel):
    name: str | None = Field(default=None, pattern=NAME_PATTERN)
    """Publish the verified export under this name in the store, as its next version, when every
    rule of `gate` is met: `<store>/published/<name>/v0001`, and `latest.json` beside it then names
    that version. Without it, nothing is published."""
