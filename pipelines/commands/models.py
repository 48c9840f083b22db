"""`hagane models`. What is imported here is imported for `--help`."""

from typing import Annotated

import typer

from pipelines.commands.options import AsJson


def models(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD]", help="Show only models whose name or type has these words."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List open models for Japanese known by name: architecture, LoRA targets, tokenizer, chat
    template, licence, serving."""
    from components.shared.model.registry import matching_families
    from pipelines.screens.as_json import models_json, print_json
    from pipelines.screens.run import models_screen, open_console

    found = matching_families(words or ())
    if as_json:
        print_json(models_json(found))
    else:
        open_console().print(models_screen(found))
