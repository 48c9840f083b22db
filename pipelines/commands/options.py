"""Arguments and options that several commands of `hagane` have, and their defaults. Imported for
`--help`."""

from pathlib import Path
from typing import Annotated

import typer

EXPERIMENT = "hagane"
"""Where KFP shows runs of which nothing else is said."""

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The run's spec, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help=(
            "Set a field of the spec, e.g. `--set training.epochs=5`. May be repeated; the last "
            "wins."
        ),
    ),
]
RunPlace = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The run: its spec, a YAML file, or its URI such as s3://bucket/runs/demo.",
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text, for programs.")]


def run_uri(place: str, overrides: list[str] | None = None) -> str:
    """URI of the run that RunPlace names, a spec with `overrides`. Raises SpecError."""
    from components.shared.errors import SpecError
    from components.shared.spec.file import load_spec

    names_a_spec = "://" not in place and Path(place).suffix in (".yaml", ".yml")
    if names_a_spec or Path(place).is_file():
        return load_spec(Path(place), overrides or ()).run_uri
    if overrides:
        raise SpecError(f"--set: sets fields of a spec, but {place} is no file; leave it out")
    return place
