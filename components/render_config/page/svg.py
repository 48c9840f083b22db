"""A memory plan -> SVG drawings: each stage and offload against the hardware's limit, what a stage
divides, the time line.

The first is figure 1 of the ZeRO paper (arXiv 1910.02054) for the reader's own model. Colours are
the page's, by class. Each drawing has a form for wide windows and one for phones, whose text stays
readable at 350 px.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from components.render_config.cost.hardware import GIB
from components.shared.documents.plan import MemoryPlan, Plan, StepPlan, ZeroOption
from components.shared.figures import plural


@dataclass(frozen=True)
class Sizes:
    """Of a drawing, in the SVG's units, which are pixels at the drawing's own width."""

    width: int
    names: int
    """Room for names left of the bars; 0 sets them above."""
    numbers: int
    row: int
    most_marks: int


WIDE = Sizes(width=760, names=250, numbers=90, row=26, most_marks=12)
PHONE = Sizes(width=350, names=0, numbers=82, row=44, most_marks=5)
MOST_PIECES = 16
"""Pieces that a bar is drawn in; more processes share these."""
TRAINED_BYTES = {"fp32": 8, "bf16": 12, "fp16": 12}
"""Of optimizer state for each trained parameter: two moments in fp32, and in 16 bits fp32
weights."""
STAGES = ("no ZeRO", "ZeRO-1", "ZeRO-2", "ZeRO-3")


def options_chart(memory: MemoryPlan, *, host: bool, chosen: str, sizes: Sizes = WIDE) -> str:
    """One bar per option: bytes of a GPU, or of a node's host, by kind; a line at the hardware's
    limit and one at the margin."""
    if host:
        limit = memory.host_limit
    else:
        limit = memory.gpu_limit
    kinds = [(each.host_kinds if host else each.gpu_kinds) for each in memory.options]
    totals = [sum(each.values()) for each in kinds]
    most = max([*totals, limit or 0])
    scale = (sizes.width - sizes.names - sizes.numbers) / most
    bottom = sizes.row * len(totals)
    if host:
        what = "host memory per node"
    else:
        what = "memory per GPU"
    parts = [_svg(sizes.width, bottom + 24, f"{what} for each ZeRO stage and offload")]
    for index, (each, total, its) in enumerate(zip(memory.options, totals, kinds, strict=True)):
        parts += _bar(
            each,
            its,
            sizes=sizes,
            y=sizes.row * index,
            scale=scale,
            chosen=each.zero.name == chosen,
            over=limit is not None and total > limit * (1 - memory.margin),
        )
    if limit is not None:
        parts += _limit(limit, memory.margin, sizes=sizes, scale=scale, bottom=bottom)
    return "\n".join([*parts, "</svg>"])


def _svg(width: float, height: float, label: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'


def _bar(
    each: ZeroOption,
    kinds: dict[str, int],
    *,
    sizes: Sizes,
    y: int,
    scale: float,
    chosen: bool,
    over: bool,
) -> Iterable[str]:
    total = sum(kinds.values())
    width = max(1.0, round(total * scale, 1))
    top = y + sizes.row - 22
    yield _name(short_name(each), sizes, y, chosen=chosen)
    yield f'<g class="{"over" if over else "fits"}">'
    left = 0
    for kind, num_bytes in kinds.items():
        x, wide = round(sizes.names + left * scale, 1), round(num_bytes * scale, 1)
        yield f'<rect class="{css_class(kind)}" x="{x}" y="{top}" width="{wide}" height="18"/>'
        left += num_bytes
    yield "</g>"
    if chosen:
        yield f'<rect class="chosen" x="{sizes.names}" y="{top}" width="{width}" height="18"/>'
    yield (
        f'<text class="tick" x="{sizes.names + width + 6}" y="{top + 13}">{total / GIB:.1f} '
        "GiB</text>"
    )


def _name(name: str, sizes: Sizes, y: int, *, chosen: bool) -> str:
    if chosen:
        kind = "name chosen"
    else:
        kind = "name"
    if sizes.names:
        return (
            f'<text class="{kind}" x="{sizes.names - 10}" y="{y + 17}" '
            f'text-anchor="end">{name}</text>'
        )
    return f'<text class="{kind}" x="0" y="{y + 16}">{name}</text>'


def css_class(kind: str) -> str:
    """`optimizer-state` for `optimizer state`."""
    return kind.replace(" ", "-")


def short_name(each: ZeroOption) -> str:
    zero = each.zero
    held = {
        (False, False): "",
        (True, False): ", optimizer offloaded",
        (True, True): ", all offloaded",
    }
    return STAGES[zero.stage] + held[(zero.offload_optimizer, zero.offload_parameters)]


def _limit(limit: int, margin: float, *, sizes: Sizes, scale: float, bottom: int) -> Iterable[str]:
    for share, kind in ((1.0, "limit"), (1 - margin, "margin")):
        x = round(sizes.names + limit * share * scale, 1)
        yield f'<line class="{kind}" x1="{x}" y1="0" x2="{x}" y2="{bottom + 4}"/>'
    label = f"limit {limit / GIB:.0f} GiB, {margin:.0%} of it kept free"
    x = max(sizes.names + limit * scale, 230.0)
    yield f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="end">{label}</text>'


def divided(plan: Plan) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """For each ZeRO stage: its name, and of weights, gradients and optimizer state the drawing,
    bytes, and how it is divided.

    Bytes are what one process holds: the weights in the plan's precision, 8 or 12 bytes of
    optimizer state for each trained parameter. Buffers and activations are not in it.
    """
    if plan.precision == "fp32":
        weight_bytes = 4
    else:
        weight_bytes = 2
    processes = plan.steps.num_processes
    wholes = (
        ("weights", weight_bytes * plan.model.num_parameters, 3),
        ("gradients", weight_bytes * plan.num_trainable, 2),
        ("optimizer state", TRAINED_BYTES[plan.precision] * plan.num_trainable, 1),
    )
    for stage, name in enumerate(STAGES):
        cells = [
            _cell(kind, num_bytes, processes if stage >= first else 1, processes)
            for kind, num_bytes, first in wholes
        ]
        yield name, cells


def _cell(kind: str, num_bytes: int, parts: int, processes: int) -> tuple[str, str, str]:
    pieces = min(processes, MOST_PIECES)
    if parts == 1:
        filled = pieces
    else:
        filled = 1
    wide = 120 / pieces
    drawn = [_svg(120, 14, f"{kind}: {filled} of {pieces} pieces")]
    for piece in range(pieces):
        if piece < filled:
            style = css_class(kind)
        else:
            style = "elsewhere"
        drawn.append(
            f'<rect class="{style}" x="{piece * wide:.1f}" y="1" width="{wide - 1:.1f}" '
            'height="12"/>'
        )
    if parts == 1:
        share = "whole"
    else:
        share = f"1/{parts}"
    return "\n".join([*drawn, "</svg>"]), f"{num_bytes / parts / GIB:.2f} GiB", share


def time_line(steps: StepPlan, sizes: Sizes = WIDE) -> str:
    """Epochs as boxes, a dot where a checkpoint is saved; numbers for as many as there is room
    for."""
    left, right, y = 20, sizes.width - 20, 20
    scale = (right - left) / steps.total_steps
    every = -(-len(steps.save_steps) // sizes.most_marks)
    parts = [
        _svg(
            sizes.width,
            66,
            f"{plural(steps.total_steps, 'step')}, {plural(len(steps.save_steps), 'checkpoint')}",
        )
    ]
    begin, saves = 0, list[str]()
    for number, step in enumerate(steps.save_steps, start=1):
        x1, x2 = round(left + begin * scale, 1), round(left + step * scale, 1)
        parts.append(
            f'<rect class="epoch{number % 2}" x="{x1}" y="{y - 8}" width="{round(x2 - x1, 1)}" '
            'height="16"/>'
        )
        saves.append(f'<circle class="save" cx="{x2}" cy="{y}" r="5"/>')
        if number % every == 0 or number == len(steps.save_steps):
            parts.append(
                f'<text class="tick" x="{x2}" y="{y + 28}" text-anchor="end">{step:,}</text>'
            )
            parts.append(
                f'<text class="tick" x="{x2}" y="{y + 43}" text-anchor="end">epoch {number}</text>'
            )
        begin = step
    return "\n".join([*parts, *saves, "</svg>"])  # a box drawn later would hide half of a dot
