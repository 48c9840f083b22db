"""A file that a command writes for a person, and that is not there yet."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.shared.errors import SpecError


def must_be_new(out: Path) -> None:
    """Raises SpecError where the file is there already, or its folder is not."""
    if out.exists():
        raise SpecError(f"--out: {out} is there already, and is not overwritten; name another file")
    if not out.parent.is_dir():
        raise SpecError(
            f"--out: {out}: there is no folder {out.parent}; make it, or name a file in another"
        )


def write_new(out: Path, text: str) -> None:
    """Raises SpecError where the file cannot be written."""
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(
            f"--out: {out} cannot be written: {error.strerror}; name another file"
        ) from None


@contextmanager
def write_together(files: Mapping[Path, str]) -> Iterator[None]:
    """The new files are there in the block and after it, or, where anything was raised, none of
    them is. Raises as `write_new`."""
    try:
        for out, text in files.items():
            write_new(out, text)
        yield
    except BaseException:  # Ctrl-C too
        for out in files:
            out.unlink(missing_ok=True)
        raise
