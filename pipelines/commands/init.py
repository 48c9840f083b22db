"""`hagane init`. What is imported here is imported for `--help`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

Checked = TypeVar("Checked")


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
    from components.shared.spec.file import check_name
    from components.shared.spec.places import DATA, MODEL, STORE, written_for
    from pipelines.commands.new_file import must_be_new, write_together
    from pipelines.programs.first_spec import first_spec, look_at, template_for

    check_name(name, "--name")
    must_be_new(out)
    model = _answer(model, "Model: hub id or folder", "--model", model_named)
    data, looked = _answer(
        data,
        "Data: file, folder or pattern of records",
        "--data",
        lambda place: (place, look_at(place)),
    )
    template = template_for(looked, model)
    text = first_spec(
        looked,
        name=name,
        store=written_for(STORE, store, out.parent),
        model=written_for(MODEL, model, out.parent),
        data=written_for(DATA[0], data, out.parent),
        template=None if template is None else template.name,
        full=full,
    )
    files = {out: text}
    if template is not None:
        must_be_new(out.parent / template.name)
        files[out.parent / template.name] = template.read_text(encoding="utf-8")
    with write_together(files):
        show(out, text, with_plan=with_plan)
    print(f"next: hagane data {out}    hagane run {out}")


def model_named(model: str) -> str:
    """The same. Raises ModelError where it is neither a folder nor spelt as a hub id."""
    from components.shared.errors import ModelError
    from components.shared.machine import user_path
    from components.shared.model.hub_id import is_hub_id
    from components.shared.printable import shown

    folder = user_path(model)
    if folder.is_dir() or (is_hub_id(model) and not folder.exists()):
        return model
    raise ModelError(
        f"--model: got {shown(model)}, which is no folder here and no hub id. Fix: name the folder "
        "that holds config.json, or a hub id such as org/name"
    )


def show(spec: Path, text: str, *, with_plan: bool) -> None:
    """The new spec is on the screen, and where asked its plan. Raises HaganeError where it cannot
    be read or planned."""
    from components.shared.errors import HaganeError
    from components.shared.spec.file import load_spec
    from pipelines.commands.run import plan

    load_spec(spec)
    print(f"{spec}:\n\n{text}", flush=True)
    if not with_plan:
        return
    try:
        plan(spec)
    except HaganeError as error:
        not_written = HaganeError(
            *error.problems,
            f"{spec}: not written, since it cannot be planned. Fix: what is said above, or write "
            "it without a plan by --no-plan",
        )
        not_written.exit_code = error.exit_code
        raise not_written from None


def _answer(given: str, question: str, option: str, checked: Callable[[str], Checked]) -> Checked:
    """What `checked` makes of the option or, where that is empty, of what a person answers; a wrong
    answer is asked for again. Raises SpecError where there is no terminal, and as `checked`."""
    from components.shared.errors import HaganeError, SpecError

    def of_person(answer: str) -> Checked:
        try:
            return checked(answer.strip())
        except HaganeError as error:
            raise typer.BadParameter(error.lines[0]) from None

    if given:
        return checked(given)
    if not sys.stdin.isatty():
        raise SpecError(f"{option}: is missing; there is no terminal to ask in. Fix: add {option}")
    return typer.prompt(question, value_proc=of_person)
