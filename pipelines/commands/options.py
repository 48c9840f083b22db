"""Arguments and options that several commands of `hagane` have, and their defaults. Imported for `--help`."""

from pathlib import Path
from typing import Annotated

import typer

EXPERIMENT = "hagane"
"""Where KFP shows runs of which nothing else is said."""

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The run's spec, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="A.B=VALUE", help="Set a field of the spec, e.g. `--set training.epochs=5`. May be repeated; the last wins."
    ),
]
RunPlace = Annotated[str, typer.Argument(metavar="RUN", help="The run: its spec, a YAML file, or its URI such as s3://bucket/runs/demo.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def run_uri(place: str) -> str:
    """URI of the run that RunPlace names."""
    from components.shared.spec.file import load_spec

    return load_spec(Path(place)).run_uri if Path(place).is_file() else place
