"""All that was found of a run -> report.html: one page that needs nothing beside it, light or dark
as the reader's browser asks."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.shared.documents.plan import Plan
from components.shared.documents.results import Evaluation, Verification
from components.shared.figures import plural
from components.shared.html.loss_chart import loss_chart
from components.shared.html.page import page_environment
from components.shared.spec.file import spec_yaml
from components.write_report import words
from components.write_report.against_plan import against_plan, reported
from components.write_report.curves import curves
from components.write_report.differences import marked
from components.write_report.gather import RunFound
from components.write_report.measured import metric_rows
from components.write_report.timeline import timeline

WIDE, NARROW = (760, 300), (380, 260)
"""The chart is drawn twice, for a desk and for a phone; text in a drawing that shrinks could not be
read."""


SHORTEST = 1e-7
"""A difference that gets no bar: rounding of one fp32 number, about 2 to the -23."""
MOST_PERCENT = 80
"""Length of the longest bar; its number stands behind it."""


@dataclass(frozen=True)
class ProofBar:
    name: str
    kind: str
    """export, allowed or base: the bar's CSS class."""
    value: str
    percent: int


@dataclass(frozen=True)
class PlanRow:
    name: str
    value: str
    reason: str


def render_page(found: RunFound) -> str:
    """The page's HTML. Everything that comes from the run is escaped."""
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "duration": words.duration,
        "size": words.size,
        "parameters": words.parameters,
    }
    facts = found.dataset.facts
    return environment.get_template("report.html.jinja").render(
        found=found,
        facts=facts,
        verdict=verdict(found),
        # numbers only
        chart=Markup(loss_chart(found.history, width=WIDE[0], height=WIDE[1])),  # noqa: S704
        # numbers only
        small_chart=Markup(loss_chart(found.history, width=NARROW[0], height=NARROW[1])),  # noqa: S704
        curves=curves(
            found.history,
            tokens_per_step=found.plan.steps.tokens_per_epoch / found.plan.steps.steps_per_epoch,
        ),
        answers=[
            (answer.question, marked(answer.base, answer.tuned))
            for answer in found.evaluation.answers
        ],
        metric_rows=metric_rows(found.evaluation),
        timeline=timeline(found),
        environment=found.history.starts[-1].environment if found.history.starts else {},
        training_parts=part_rows(found.history.part_seconds),
        start_parts=part_rows(found.history.starts[-1].start_up_s if found.history.starts else {}),
        num_restarts=max(len(found.history.starts) - 1, 0),
        plan_rows=plan_rows(found.plan),
        against_plan=[reported(figure) for figure in against_plan(found)],
        checkpoint_bytes={
            checkpoint.epoch: checkpoint.num_bytes for checkpoint in found.checkpoints
        },
        filled=words.share(
            int(facts["num_tokens"] or 0),
            int(facts["num_rows"] or 0) * int(facts["row_tokens"] or 0),
        ),
        trained_share=words.share(found.plan.num_trainable, found.plan.model.num_parameters),
        proof_bars=proof_bars(found.verification),
        spec=spec_yaml(found.spec),
    )


PART_NAMES = {
    "data": "reading rows",
    "forward": "forward pass",
    "backward": "backward pass",
    "optimizer": "optimizer step",
    "save": "waiting for checkpoints",
    "held_out": "held-out loss",
    "proof_of_rows": "proof that conversations of a row are apart",
    "held_out_loss": "held-out loss before the first step",
    "first_step": "first optimizer step",
}


def part_rows(seconds: dict[str, float]) -> list[tuple[str, str, str]]:
    """Of each part its name, its time and its share of all parts."""
    total = sum(seconds.values())
    return [
        (PART_NAMES.get(part, part), words.exact_duration(took), words.share(took, total))
        for part, took in seconds.items()
    ]


def model_name(found: RunFound) -> str:
    """The last part of the model's folder or hub id."""
    return found.plan.model.source.rstrip("/").rsplit("/", 1)[-1]


def verdict(found: RunFound) -> str:
    """What was tuned on what, how long it took, what came of it: one sentence, behind which the two
    losses stand."""
    if found.plan.lora is not None:
        what = "LoRA"
    else:
        what = "full training"
    conversations = plural(int(found.dataset.facts["num_conversations"] or 0), "conversation")
    return (
        f"{model_name(found)} learned from {conversations} by {what}, "
        f"{plural(len(found.history.epochs), 'epoch')} in {words.duration(found.history.seconds)}; "
        f"{_outcome(found.evaluation)}"
    )


def _outcome(evaluation: Evaluation) -> str:
    if evaluation.improved is None:
        return "nothing was held out, so no loss says whether it helped."
    if evaluation.improved:
        moved = "fell"
    else:
        moved = "did not fall"
    return f"its loss on held-out conversations {moved}:"


def proof_bars(found: Verification) -> list[ProofBar]:
    """Largest differences from the trained model's logits. A bar's length is logarithmic, from
    SHORTEST to the base model's."""
    rows = (
        ("export", "export", found.exported.max),
        ("allowed", "allowed", found.tolerance_max),
        ("base model", "base", found.base.max),
    )
    whole = math.log(max(found.base.max / SHORTEST, 10))
    lengths = (min(math.log(max(value / SHORTEST, 1)) / whole, 1) for *_, value in rows)
    return [
        ProofBar(name, kind, f"{value:.2g}", percent=round(MOST_PERCENT * length))
        for (name, kind, value), length in zip(rows, lengths, strict=True)
    ]


_LABELS = {
    "precision": "number format",
    "num_trainable": "trainable parameters",
    "lora.rank": "LoRA rank",
    "lora.target_modules": "LoRA targets",
    "model.num_parameters": "parameters",
    "steps.num_rows": "packed rows",
    "steps.num_processes": "processes",
    "steps.micro_batch": "rows per pass and process",
    "steps.grad_accum": "gradient accumulation",
    "steps.global_batch": "rows per step",
    "steps.steps_per_epoch": "steps per epoch",
    "steps.total_steps": "total steps",
    "steps.warmup_steps": "warm-up steps",
    "steps.save_steps": "checkpoints after steps",
    "checkpoints.bytes_each": "each checkpoint",
    "checkpoints.bytes_total": "all checkpoints",
    "zero": "ZeRO",
}


def plan_rows(plan: Plan) -> list[PlanRow]:
    """The plan's numbers in a fixed order, then whatever else it gives a reason for, but for the
    rendered files, which its own page has."""
    tree = plan.model_dump()
    keys = [
        *_LABELS,
        *(key for key in plan.reasons if key not in _LABELS and not key.startswith("files.")),
    ]
    found = ((key, _value(tree, key)) for key in keys)
    return [
        PlanRow(_LABELS.get(key, key), value, plan.reasons.get(key, ""))
        for key, value in found
        if value or key in plan.reasons
    ]


def _value(tree: dict[str, Any], dotted: str) -> str:
    value: Any = tree
    for part in dotted.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        else:
            value = None
    if value is None or isinstance(value, dict):
        return ""
    if dotted.startswith("checkpoints.bytes"):
        return words.size(value)
    if isinstance(value, tuple):
        return ", ".join(f"{item:,}" if isinstance(item, int) else str(item) for item in value)
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
