"""A plan -> page.html: verdict, memory against the hardware, communication, time line, every value with its reason; nothing beside it."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.render_config.hardware import GIB
from components.render_config.picture import options_chart, short_name, time_line
from components.shared.page import page_environment
from components.shared.plan import Plan


def render_page(plan: Plan) -> str:
    """The page's HTML. Everything that comes from the spec is escaped."""
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {"gib": lambda num_bytes: f"{num_bytes / GIB:.2f}", "short_name": short_name}
    assert plan.memory is not None
    drawings = {"host": options_chart(plan.memory, host=True, chosen=plan.zero.name)}
    if plan.memory.gpu_limit is not None:
        drawings["gpu"] = options_chart(plan.memory, host=False, chosen=plan.zero.name)
    return environment.get_template("page.html.jinja").render(
        plan=plan,
        memory=plan.memory,
        charts={name: Markup(drawing) for name, drawing in drawings.items()},  # noqa: S704 - numbers and stages only
        time_line=Markup(time_line(plan.steps)),  # noqa: S704 - numbers only
        values=values(plan),
    )


def values(plan: Plan) -> list[tuple[str, str, str]]:
    """Field of the plan, its value, why: in the plan's order, then reasons of what has no single value."""
    flat = _flat(plan.model_dump(exclude={"memory", "time", "reasons", "verdict", "cautions", "schema_version"}))
    named = {key: value for key, value in flat.items() if value not in (None, (), "")}
    rest = [(key, "", why) for key, why in plan.reasons.items() if key not in named]
    return [*((key, _said(value), plan.reasons.get(key, "")) for key, value in named.items()), *rest]


def _flat(tree: dict[str, Any], where: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, dict) else {where + key: value}
    return flat


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_said(item) for item in value[:40]) + (f" and {len(value) - 40} more" if len(value) > 40 else "")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
