"""A memory plan -> SVG drawings: every stage and offload against the hardware's line, and the time line of epochs and saves.

The first is the figure of the ZeRO paper (arXiv 1910.02054, figure 1), for the reader's own model. Colours are the page's, by class.
"""

from collections.abc import Iterable

from components.render_config.cost.hardware import GIB
from components.shared.documents.plan import MemoryPlan, StepPlan, ZeroOption

WIDTH, NAMES, NUMBERS, ROW = 760, 250, 90, 26
MOST_MARKS = 12


def options_chart(memory: MemoryPlan, *, host: bool, chosen: str) -> str:
    """One bar an option: bytes of a GPU, or of a node's host, by kind; a line where the hardware ends, a thin one where the margin is."""
    limit = memory.host_limit if host else memory.gpu_limit
    kinds = [(each.host_kinds if host else each.gpu_kinds) for each in memory.options]
    sizes = [sum(each.values()) for each in kinds]
    most = max([*sizes, limit or 0])
    scale = (WIDTH - NAMES - NUMBERS) / most
    height = ROW * len(sizes) + 24
    what = "a node's memory" if host else "a GPU's memory"
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{what} for each ZeRO stage and offload">']
    for index, (each, size, its) in enumerate(zip(memory.options, sizes, kinds, strict=True)):
        parts += _bar(
            each,
            its,
            y=ROW * index,
            scale=scale,
            chosen=each.zero.name == chosen,
            over=limit is not None and size > limit * (1 - memory.margin),
        )
    if limit is not None:
        parts += _limit(limit, memory.margin, scale=scale, bottom=ROW * len(sizes))
    return "\n".join([*parts, "</svg>"])


def _bar(each: ZeroOption, kinds: dict[str, int], *, y: int, scale: float, chosen: bool, over: bool) -> Iterable[str]:
    size = sum(kinds.values())
    width = max(1.0, round(size * scale, 1))
    yield f'<text class="name{" chosen" if chosen else ""}" x="{NAMES - 10}" y="{y + 17}" text-anchor="end">{short_name(each)}</text>'
    yield f'<g class="{"over" if over else "fits"}">'
    left = 0
    for kind, num_bytes in kinds.items():
        x, wide = round(NAMES + left * scale, 1), round(num_bytes * scale, 1)
        yield f'<rect class="{css_class(kind)}" x="{x}" y="{y + 4}" width="{wide}" height="{ROW - 8}"/>'
        left += num_bytes
    yield "</g>"
    if chosen:
        yield f'<rect class="chosen" x="{NAMES}" y="{y + 4}" width="{width}" height="{ROW - 8}"/>'
    yield f'<text class="tick" x="{NAMES + width + 6}" y="{y + 17}">{size / GIB:.1f} GiB</text>'


def css_class(kind: str) -> str:
    """`optimizer-state` for `optimizer state`."""
    return kind.replace(" ", "-")


def short_name(each: ZeroOption) -> str:
    zero = each.zero
    stage = f"ZeRO-{zero.stage}" if zero.stage else "no ZeRO"
    held = {(False, False): "", (True, False): ", optimizer offloaded", (True, True): ", all offloaded"}
    return stage + held[(zero.offload_optimizer, zero.offload_parameters)]


def _limit(limit: int, margin: float, *, scale: float, bottom: int) -> Iterable[str]:
    for share, kind in ((1.0, "limit"), (1 - margin, "margin")):
        x = round(NAMES + limit * share * scale, 1)
        yield f'<line class="{kind}" x1="{x}" y1="0" x2="{x}" y2="{bottom + 4}"/>'
    said = f"{limit / GIB:.0f} GiB, {margin:.0%} kept free"
    yield f'<text class="tick" x="{NAMES + limit * scale:.1f}" y="{bottom + 18}" text-anchor="end">{said}</text>'


def time_line(steps: StepPlan) -> str:
    """Epochs as boxes, a dot where a checkpoint is saved; numbers for as many as there is room for."""
    left, right, y = 20, WIDTH - 20, 20
    scale = (right - left) / steps.total_steps
    every = -(-len(steps.save_steps) // MOST_MARKS)
    parts = [f'<svg viewBox="0 0 {WIDTH} 66" role="img" aria-label="{steps.total_steps} steps, {len(steps.save_steps)} checkpoints">']
    begin, saves = 0, list[str]()
    for number, step in enumerate(steps.save_steps, start=1):
        x1, x2 = round(left + begin * scale, 1), round(left + step * scale, 1)
        parts.append(f'<rect class="epoch{number % 2}" x="{x1}" y="{y - 8}" width="{round(x2 - x1, 1)}" height="16"/>')
        saves.append(f'<circle class="save" cx="{x2}" cy="{y}" r="5"/>')
        if number % every == 0 or number == len(steps.save_steps):
            parts.append(f'<text class="tick" x="{x2}" y="{y + 28}" text-anchor="end">{step:,}</text>')
            parts.append(f'<text class="tick" x="{x2}" y="{y + 43}" text-anchor="end">epoch {number}</text>')
        begin = step
    return "\n".join([*parts, *saves, "</svg>"])  # a box drawn later would hide half of a dot
