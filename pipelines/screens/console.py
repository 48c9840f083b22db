"""The console that commands print to, which shows text as it is."""

import os
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


def open_console(*, stderr: bool = False, progress: bool = False) -> Console:
    """A console that prints text as it is: a model name or an error may hold brackets, which rich
    would take for markup. Colours are left out under NO_COLOR and where no terminal is.

    Progress and notes, on stderr or of `progress`, are left out under `hagane --quiet`."""
    quiet = "HAGANE_QUIET" in os.environ and (stderr or progress)
    return PlainConsole(stderr=stderr, quiet=quiet, markup=False, highlight=False)
