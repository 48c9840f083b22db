"""A plan -> page.html: verdict, memory against the hardware, communication, time line, every value
with its reason; nothing beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.render_config.cost.hardware import GIB, NETWORK_GBIT_S
from components.render_config.cost.terms import KINDS
from components.render_config.page.svg import (
    PHONE,
    WIDE,
    Sizes,
    css_class,
    divided,
    options_chart,
    short_name,
    time_line,
)
from components.shared.documents.plan import MemoryPlan, Plan
from components.shared.figures import time_of
from components.shared.html.page import page_environment
from components.shared.tree import leaves

WHAT_IT_IS = {
    "run": "as the spec names it",
    "method": "training.method, as the spec asks",
    "training_digest": (
        "sha256 of all that the losses follow from: a run goes on from its checkpoints only while "
        "it stays"
    ),
    "model.source": "as the spec names it",
    "model.revision": "the hub commit that the dataset was made for",
    "model.model_type": "from config.json",
    "model.largest_layer_parameters": "the largest single weight: what ZeRO-3 gathers at once",
    "hardware.num_nodes": "hardware.num_nodes, as the spec asks",
    "hardware.processes_per_node": "hardware.processes_per_node, as the spec asks",
    "hardware.gpu": "hardware.gpu, as the spec names it",
    "hardware.tflops": (
        "dense matrix products of one GPU in this precision: its data sheet, or hardware.tflops"
    ),
    "hardware.link_gb_s": "from one GPU to the others of its node, in GB/s: its data sheet",
    "hardware.network_gb_s": (
        f"from one node to the others, in GB/s: hardware.network_gbit_s, or {NETWORK_GBIT_S} "
        "Gbit/s, divided by 8"
    ),
    "zero.offload_optimizer": "as for zero.stage",
    "zero.offload_parameters": "as for zero.stage",
    "steps.num_rows": "rows of the dataset that are trained on",
    "steps.num_processes": "hardware.num_nodes x hardware.processes_per_node",
    "steps.global_batch": "training.global_batch, as the spec asks",
    "steps.tokens_per_epoch": "of all rows, padding not counted",
    "steps.tokens_total": "of all epochs; rows that fill up a last batch count again",
    "lora.rank": "as the spec asks",
    "lora.alpha": (
        "as the spec asks: the update is scaled by alpha / rank, with rslora by alpha / sqrt(rank)"
    ),
    "lora.rslora": "as the spec asks",
    "lora.dora": "as the spec asks",
    "lora.dropout": "as the spec asks",
    "lora.exclude_modules": "these end like a target and are none",
    "lora.fan_in_fan_out": "only for layers that store their weight as (inputs, outputs)",
    "checkpoints.bytes_total": "bytes_each x num_kept",
    "checkpoints.node_bytes": (
        "of bytes_each, what the node with process 0 writes; no other writes more"
    ),
    "checkpoints.work_bytes": (
        "twice node_bytes: one is written while the one before may still be on its way"
    ),
}
"""Why a field is as it is, where that is the same in every plan."""
MOST_ITEMS = 40
"""Of a list that the page shows."""


def render_page(plan: Plan, files: Mapping[str, dict[str, Any]]) -> str:
    """The page's HTML. Everything that comes from the spec is escaped. `files` are those that the
    training libraries read."""
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {
        "gib": lambda num_bytes: f"{num_bytes / GIB:.2f}",
        "short_name": short_name,
        "css_class": css_class,
        "time_of": time_of,
    }
    shown_kinds = [kind for kind in KINDS if _is_drawn(kind, plan.memory)]
    return environment.get_template("page.html.jinja").render(
        plan=plan,
        memory=plan.memory,
        figures=headline(plan),
        charts=_charts(plan),
        time_lines=_both(lambda sizes: time_line(plan.steps, sizes)),
        divided=[
            (stage, [(Markup(svg), *rest) for svg, *rest in cells])  # noqa: S704 - numbers only
            for stage, cells in divided(plan)
        ],
        kinds=shown_kinds,
        values=values(plan),
        file_values=file_values(plan, files),
    )


def _is_drawn(kind: str, memory: MemoryPlan) -> bool:
    return any(kind in each.gpu_kinds or kind in each.host_kinds for each in memory.options)


def _both(draw: Callable[[Sizes], str]) -> tuple[Markup, Markup]:
    """The drawing for wide windows and the one for phones."""
    return Markup(draw(WIDE)), Markup(draw(PHONE))  # noqa: S704 - numbers and stages only


def _charts(plan: Plan) -> dict[str, tuple[Markup, Markup]]:
    memory, chosen = plan.memory, plan.zero.name
    charts = {
        "host": _both(lambda sizes: options_chart(memory, host=True, chosen=chosen, sizes=sizes))
    }
    if memory.gpu_limit is not None:
        charts["gpu"] = _both(
            lambda sizes: options_chart(memory, host=False, chosen=chosen, sizes=sizes)
        )
    return charts


def headline(plan: Plan) -> list[tuple[str, str, str]]:
    """Name, figure and what stands below it: whether it fits, memory of GPU and host, time and
    price."""
    memory, hardware, steps = plan.memory, plan.hardware, plan.steps
    device = hardware.gpu or "CPU process"
    found = [
        (
            "Fits",
            "yes",
            (
                f"{plan.zero.name} on {steps.num_processes} x {device}, micro-batch "
                f"{steps.micro_batch}"
            ),
        )
    ]
    if memory.gpu_limit is not None:
        found.append(
            (
                "GPU memory",
                f"{memory.gpu_bytes / GIB:.1f} GiB",
                f"of {memory.gpu_limit / GIB:.1f} GiB per GPU",
            )
        )
    of_host = "per node, whose memory the spec does not state"
    if memory.host_limit is not None:
        of_host = f"of {memory.host_limit / GIB:.1f} GiB per node"
    found.append(("Host memory", f"{memory.host_bytes / GIB:.1f} GiB", of_host))
    if plan.time is None:
        found.append(
            ("Time", "not known", "the speed of this GPU is not known; set hardware.tflops")
        )
        return found
    time = plan.time
    between = f"{time_of(time.hours_low * 3600)} to {time_of(time.hours_high * 3600)}"
    if time.price is None:
        price = ""
    else:
        price = f", about {time.price_with_currency}"
    found.append(("Time", time_of(time.hours * 3600), f"{between}{price}"))
    return found


def values(plan: Plan) -> list[tuple[str, str, str]]:
    """Field of the plan, its value, why: in the plan's order, then reasons of what has no single
    value."""
    not_shown = {"memory", "time", "reasons", "verdict", "cautions", "schema_version", "probe"}
    shown = leaves(plan.model_dump(exclude=not_shown))
    named = {key: value for key, value in shown if value not in (None, (), "")}
    why = {**WHAT_IT_IS, "zero.stage": plan.reasons["zero"], **plan.reasons}
    rest = [
        (key, "", why)
        for key, why in plan.reasons.items()
        if key not in named and key != "zero" and not key.startswith("files.")
    ]
    return [*((key, _said(value), why.get(key, "")) for key, value in named.items()), *rest]


def file_values(
    plan: Plan, files: Mapping[str, dict[str, Any]]
) -> dict[str, list[tuple[str, str, str]]]:
    """File -> each field of it, its value, why. A reason that is a name is the field of spec or
    plan that it follows."""
    return {
        f"{name}.json": [
            (field, _said(value), plan.file_reason(name, field)) for field, value in leaves(content)
        ]
        for name, content in files.items()
    }


def _said(value: object) -> str:
    if isinstance(value, tuple | list):
        items = ", ".join(_said(item) for item in value[:MOST_ITEMS])
        more = len(value) - MOST_ITEMS
        if more > 0:
            return f"{items} and {more} more"
        return items
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
