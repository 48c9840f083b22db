"""A plan -> Markdown for a comment on a pull request: verdict, warnings, figures, options, decided
values."""

from collections.abc import Iterator

from components.shared.documents.plan import MemoryPlan, Plan
from components.shared.documents.probe import ProbePlan
from components.shared.figures import size_of, time_range

GIB = 2**30
VALUES = (
    *("learning_rate", "precision", "zero", "steps.micro_batch", "steps.grad_accum"),
    *("steps.num_rows", "steps.steps_per_epoch", "steps.total_steps", "steps.save_steps"),
    *("lora.rank", "lora.target_modules", "checkpoints.num_kept"),
)
"""Fields whose reasons a reviewer wants to read."""


def plan_markdown(plan: Plan) -> str:
    """Tables as GitHub and GitLab show them; text from specs and models cannot end a cell."""
    lines = [f"### Plan of {_cell(plan.run)}", "", _cell(plan.verdict), ""]
    lines += [f"> **Warning:** {_cell(caution)}\n>" for caution in plan.cautions]
    lines += ["", *_figures(plan)]
    if plan.probe is not None:
        lines += ["", *_probe(plan.probe)]
    lines += ["", *_options(plan.memory, plan.zero.name)]
    lines += ["", "<details><summary>Why</summary>", "", "| value | reason |", "|---|---|"]
    lines += [
        f"| `{name}` | {_cell(plan.reasons[name])} |" for name in VALUES if name in plan.reasons
    ]
    return "\n".join([*lines, "", "</details>"]) + "\n"


def _figures(plan: Plan) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    memory, steps, time = plan.memory, plan.steps, plan.time
    if memory.gpu_limit is not None:
        yield (
            f"| GPU memory | {memory.gpu_bytes / GIB:.1f} of {memory.gpu_limit / GIB:.1f} GiB per "
            "GPU |"
        )
    if memory.host_limit is None:
        limit = ""
    else:
        limit = f" of {memory.host_limit / GIB:.1f}"
    yield f"| host memory | {memory.host_bytes / GIB:.1f}{limit} GiB per node |"
    yield (
        f"| optimizer steps | {steps.total_steps:,}, a checkpoint every {steps.steps_per_epoch:,} |"
    )
    kept = f"{plan.checkpoints.num_kept} x {size_of(plan.checkpoints.bytes_each)}"
    yield f"| checkpoints | {kept} |"
    if time is not None:
        hours = time_range(time.hours * 3600, time.hours_low * 3600, time.hours_high * 3600)
        yield f"| time | {hours} |"
        if time.price is not None:
            yield f"| price | about {time.price_with_currency} |"


def _probe(probe: ProbePlan) -> Iterator[str]:
    yield "| probe | planned | measured | difference |"
    yield "|---|---|---|---|"
    for row in probe.table:
        yield f"| {' | '.join(row)} |"
    yield ""
    yield _cell(probe.how)


def _options(memory: MemoryPlan, chosen: str) -> Iterator[str]:
    yield "| option | GPU | host | fits |"
    yield "|---|---|---|---|"
    for each in memory.options:
        if each.zero.name == chosen:
            name = f"**{each.zero.name}**"
        else:
            name = each.zero.name
        if memory.gpu_limit is not None:
            gpu = f"{each.gpu_bytes / GIB:.1f} GiB"
        else:
            gpu = ""
        if each.fits:
            fits = "yes"
        else:
            fits = "no"
        yield f"| {name} | {gpu} | {each.host_bytes / GIB:.1f} GiB | {fits} |"


def _cell(text: str) -> str:
    """Without what ends a cell, begins HTML, or mentions a person."""
    for letter, written in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "\\|"),
        ("@", "&#64;"),
        ("\n", " "),
    ):
        text = text.replace(letter, written)
    return text
