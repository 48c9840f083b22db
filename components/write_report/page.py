"""All that was found of a run -> report.html: one page that needs nothing beside it, light or dark as the reader's browser asks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from components.shared.plan import Plan
from components.shared.spec_file import spec_yaml
from components.write_report import words
from components.write_report.chart import loss_chart
from components.write_report.gather import RunFound

WIDE, NARROW = (760, 300), (380, 260)
"""The chart is drawn twice, for a desk and for a phone; text in a drawing that shrinks could not be read."""


@dataclass(frozen=True)
class PlanRow:
    name: str
    value: str
    reason: str


def render_page(found: RunFound) -> str:
    """The page's HTML. Everything that comes from the run is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "duration": words.duration,
        "size": words.size,
        "parameters": words.parameters,
    }
    return environment.get_template("report.html.jinja").render(
        found=found,
        facts=found.dataset.facts,
        model=model_name(found),
        verdict=verdict(found),
        chart=Markup(loss_chart(found.history, width=WIDE[0], height=WIDE[1])),  # noqa: S704 - numbers only
        small_chart=Markup(loss_chart(found.history, width=NARROW[0], height=NARROW[1])),  # noqa: S704 - numbers only
        plan_rows=plan_rows(found.plan),
        trained_share=words.share(found.plan.num_trainable, found.plan.model.num_parameters),
        export_bytes=sum(entry.num_bytes for entry in found.export.files),
        spec=spec_yaml(found.spec),
    )


def model_name(found: RunFound) -> str:
    """The last part of the model's folder or hub id."""
    return found.plan.model.source.rstrip("/").rsplit("/", 1)[-1]


def verdict(found: RunFound) -> str:
    """What was tuned on what, what came of it, how long it took: one sentence."""
    evaluation, facts = found.evaluation, found.dataset.facts
    what = "LoRA" if found.plan.lora is not None else "full training"
    moved = "fell" if evaluation.improved else "did not fall: it went"
    conversations, epochs = words.plural(int(facts["num_conversations"] or 0), "conversation"), len(found.history.epochs)
    return (
        f"{model_name(found)} learned from {conversations} by {what}, in {words.plural(epochs, 'epoch')} and "
        f"{words.duration(found.history.seconds)}: its loss on held-out conversations {moved} from {evaluation.base.loss:.3f} "
        f"to {evaluation.tuned.loss:.3f}."
    )


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
    "checkpoints.bytes_each": "bytes of a checkpoint",
    "checkpoints.bytes_total": "bytes of all checkpoints",
}


def plan_rows(plan: Plan) -> list[PlanRow]:
    """The plan's numbers in a fixed order, then whatever else it gives a reason for."""
    tree = plan.model_dump()
    keys = [*_LABELS, *(key for key in plan.reasons if key not in _LABELS)]
    found = ((key, _value(tree, key)) for key in keys)
    return [PlanRow(_LABELS.get(key, key), value, plan.reasons.get(key, "")) for key, value in found if value or key in plan.reasons]


def _value(tree: dict[str, Any], dotted: str) -> str:
    value: Any = tree
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, tuple):
        return ", ".join(f"{item:,}" if isinstance(item, int) else str(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
