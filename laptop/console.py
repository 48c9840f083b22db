"""How the programs of this folder tell a person what went wrong."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from components.shared.errors import HaganeError


@contextmanager
def reported() -> Iterator[None]:
    """A HaganeError inside becomes its lines on stderr and its exit code; anything else keeps its
    traceback."""
    try:
        yield
    except HaganeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
