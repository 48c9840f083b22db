"""Quality -> page.html: one self-contained page, light or dark as the reader's browser asks."""

from dataclasses import dataclass
from pathlib import Path

from components.prepare_dataset.report.quality import Bin, Quality
from components.shared.html.page import page_environment

WIDTH, HEIGHT = 640, 160
"""Of the histogram's bars, in SVG units."""


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    title: str


def render_page(run: str, model: str, quality: Quality) -> str:
    """The page's HTML. Everything that comes from data or names is escaped."""
    environment = page_environment(Path(__file__).parent)
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["visible"] = visible
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    bins = quality.train.histogram
    return environment.get_template("page.html.jinja").render(
        run=run,
        model=model,
        quality=quality,
        bars=bars(bins),
        bars_start=bins[0].start,
        bars_end=bins[-1].end - 1,
        highest=max(each.conversations for each in bins),
        width=WIDTH,
        height=HEIGHT,
    )


def visible(text: str) -> str:
    """A token's text with its white space to be seen."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "∅"


def bars(bins: tuple[Bin, ...]) -> list[Bar]:
    """One bar a bin, side by side over the whole width; the highest takes the whole height, and
    none that counts is invisible."""
    step = WIDTH / len(bins)
    most = max(each.conversations for each in bins)
    found: list[Bar] = []
    for index, each in enumerate(bins):
        if each.conversations:
            height = max(2.0, HEIGHT * each.conversations / most)
        else:
            height = 0.0
        title = f"{each.start} to {each.end - 1} tokens: {each.conversations:,} conversations"
        found.append(
            Bar(
                round(index * step, 1),
                round(HEIGHT - height, 1),
                round(step - 2, 1),
                round(height, 1),
                title,
            )
        )
    return found
