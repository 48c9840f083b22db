"""The console that commands print to, which shows text as it is."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from components.shared.printable import printable_lines


class PlainConsole(Console):
    """Prints no control character of what it is given: a model's answer may hold what a terminal
    would obey."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield (
                segment
                if segment.control
                else Segment(printable_lines(segment.text), segment.style)
            )


def open_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: a model name or an error may hold brackets, which rich
    would take for markup."""
    return PlainConsole(stderr=stderr, markup=False, highlight=False)
