"""`hagane import`, and the spec that `hagane plan` makes of another tool's file. What is imported
here is imported for `--help`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

UNREAD_DATA = "data/train.jsonl"
"""Stands for the data of a file that names none, where a plan for `--rows` reads none."""


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help=(
                "A DeepSpeed JSON, TrainingArguments as JSON or YAML, or the YAML of Axolotl, "
                "LLaMA-Factory, TRL or Accelerate."
            ),
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="SPEC",
            help="Write the spec here, to a file that is not there yet; else it is printed.",
        ),
    ] = None,
) -> None:
    """Turn another tool's configuration into a spec, and say of every key what became of it."""
    from components.shared.errors import SpecError
    from components.shared.spec.places import moved
    from pipelines.commands.new_file import must_be_new, write_new
    from pipelines.imports.foreign import read_foreign
    from pipelines.imports.screen import lines, spec_text

    imported = read_foreign(file)
    if imported is None:
        raise SpecError(f"{file}: is a spec of hagane already; run hagane plan {file}")
    if out is not None:
        must_be_new(out)
        moved(imported.spec, out.parent)
    text = spec_text(imported, str(file))
    _tell(lines(imported, str(file)))
    if out is None:
        sys.stdout.write(text)
    else:
        write_new(out, text)


def spec_of(file: Path, folder: Path, *, with_rows: bool) -> Path:
    """The file itself, or where it is another tool's, the spec made of it in the folder, with its
    lost keys on stderr.

    What is no file of a known tool is left to whoever reads it as a spec.
    """
    from components.shared.errors import SpecError
    from components.shared.spec.places import paths_from
    from pipelines.imports.foreign import read_foreign
    from pipelines.imports.screen import lines, spec_text

    try:
        imported = read_foreign(file)
    except SpecError:
        return file
    if imported is None:
        return file
    _tell(lines(imported, str(file), briefly=True))
    if with_rows and "data.train" in imported.missing:
        imported.spec.setdefault("data", {})["train"] = UNREAD_DATA
    paths_from(imported.spec, Path.cwd())
    made = folder / f"{file.stem}.yaml"
    made.write_text(spec_text(imported, str(file)), encoding="utf-8")
    return made


def _tell(found: Iterator[str]) -> None:
    from components.shared.printable import printable

    for line in found:
        print(printable(line), file=sys.stderr)
