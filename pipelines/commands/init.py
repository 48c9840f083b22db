"""`hagane init`. What is imported here is imported for `--help`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def init(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="A hub id (`hagane models` lists some), or a folder in Hugging Face layout.",
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(metavar="PATH", help="Your records: a file, folder, pattern, s3:// or hf://."),
    ] = "",
    store: Annotated[
        str, typer.Option(metavar="PLACE", help="Where runs go: a folder, or s3://bucket/prefix.")
    ] = "runs",
    name: Annotated[str, typer.Option(metavar="NAME", help="The run's name.")] = "my-run",
    full: Annotated[
        bool, typer.Option("--full", help="Train every parameter, in place of LoRA.")
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="SPEC", help="Write the spec here, to a file that is not there.")
    ] = Path("spec.yaml"),
    with_plan: Annotated[
        bool, typer.Option("--plan/--no-plan", help="Show the plan of the new spec.")
    ] = True,
) -> None:
    """Write a spec for your model and data, with the reason for each value, and show its plan.

    Looks at the data first: its form, and how much there is. In a terminal it asks for what no
    option names.
    """
    from components.shared.spec.places import DATA, MODEL, STORE, written_for
    from pipelines.commands.new_file import must_be_new, write_new
    from pipelines.commands.run import plan
    from pipelines.programs.first_spec import first_spec, look_at, template_for

    must_be_new(out)
    model = model or _asked("Model: hub id or folder", "--model")
    data = data or _asked("Data: file, folder or pattern of records", "--data")
    looked = look_at(data)
    template = template_for(looked, model)
    if template is not None:
        must_be_new(out.parent / template.name)
    text = first_spec(
        looked,
        name=name,
        store=written_for(STORE, store, out.parent),
        model=written_for(MODEL, model, out.parent),
        data=written_for(DATA[0], data, out.parent),
        template=None if template is None else template.name,
        full=full,
    )
    write_new(out, text)
    if template is not None:
        write_new(out.parent / template.name, template.read_text(encoding="utf-8"))
    print(f"{out}:\n\n{text}")
    if with_plan:
        plan(out)
    print(f"next: hagane data {out}    hagane run {out}")


def _asked(question: str, option: str) -> str:
    from components.shared.errors import SpecError

    if not sys.stdin.isatty():
        raise SpecError(f"{option}: is missing; there is no terminal to ask in. Fix: add {option}")
    return typer.prompt(question)
