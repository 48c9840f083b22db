"""`hagane data`. What is imported here is imported for `--help`."""

from typing import Annotated

import typer

from pipelines.commands.options import AsJson, Overrides


def data(
    place: Annotated[
        str,
        typer.Argument(
            metavar="SPEC|FILE",
            help="A run's spec (YAML), or a file, folder or pattern of records.",
        ),
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what training data is, before anything is paid for.

    Of a file of records: its form, counts, roles, copies, equal questions, and the first and the
    longest conversation. Of a spec also tokens, the share that fits each row length, warnings, and
    samples with what is trained on marked.

    With --json the same facts under names, numbers as numbers: records (counts), first and longest
    of a file; of a spec also num_tokens, row_sizes, warnings, and samples with the id of each
    token.
    """
    from pipelines.programs.component_program import output_of

    settings = [part for override in overrides or () for part in ("--set", override)]
    if as_json:
        how = ["--json"]
    else:
        how = []
    print(output_of("components.prepare_dataset", "--look", place, *settings, *how), end="")
