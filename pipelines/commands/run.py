"""`hagane run` and `hagane plan`. What is imported here is imported for `--help`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from components.shared.errors import HaganeError
from components.shared.printable import printable_lines
from pipelines.commands.imports import spec_of
from pipelines.commands.options import AsJson, Overrides, SpecPath

if TYPE_CHECKING:  # pydantic would take half of the time of --help
    from components.shared.spec.run_spec import RunSpec
    from pipelines.programs.planning import ProbePlace


def run(
    spec: SpecPath,
    overrides: Overrides = None,
    runner: Annotated[
        Literal["process", "docker"],
        typer.Option(
            help=(
                "How steps run: as processes of this environment, or each in its image, through "
                "docker or podman."
            )
        ),
    ] = "process",
    user: Annotated[
        int | None,
        typer.Option(
            metavar="UID",
            help=(
                "With `--runner docker`: the containers' numeric user; your own unless given, and "
                "never root."
            ),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on this machine.

    Checks everything that can be known first. What is finished already is not done again. With
    --json the run's report.json is printed at the end, and progress goes to stderr.
    """
    from components.shared.errors import after_a_change
    from components.shared.store.storage import open_store
    from pipelines.local.running import run_in_containers, run_locally
    from pipelines.programs.component_program import require_training
    from pipelines.screens.as_json import print_json
    from pipelines.screens.run import open_console, print_end, read_report

    if runner != "docker":
        require_training(otherwise=", or run all steps in a cluster: hagane submit SPEC")
    asked = checked(spec, overrides, here=True, in_images=runner == "docker")
    console = open_console(stderr=as_json, progress=True)
    if runner == "docker":
        run_in_containers(asked, console, uid=user)
    else:
        run_locally(asked, console)
    with after_a_change():
        store = open_store(asked.run_uri)
        print_end(open_console(stderr=as_json), store)
        if as_json:
            print_json(read_report(store).model_dump(mode="json"))


def plan(
    spec: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SPEC]",
            help=(
                "The run's spec, or another tool's file as hagane import reads it; only "
                "--import-deepspeed does without."
            ),
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help=(
                "Also keep the plan's files here: plan.json, deepspeed.json, page.html, the job "
                "and others."
            ),
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT",
            min=1,
            help=(
                "Plan for this many full rows: no data is read, and of the model only config.json."
            ),
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the plan as a page.")
    ] = None,
    import_deepspeed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=(
                "Tell what is wrong in a hand-written deepspeed.json, what it means, what the "
                "plan would change."
            ),
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help=(
                "Also show every value of TrainingArguments, DeepSpeed and LoraConfig with its "
                "reason."
            ),
        ),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help=(
                "Make three real steps on this machine, and plan time and price by them. Loads "
                "the model; stores nothing."
            ),
        ),
    ] = False,
    probe_pod: Annotated[
        bool,
        typer.Option(
            "--probe-pod",
            help=(
                "The same in one pod of the cluster, made as the run's workers are; rows of random "
                "tokens. The pod is deleted."
            ),
        ),
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a comment on a pull request.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show whether it fits, with which ZeRO stage, in how many steps and hours; every value with
    its reason.

    Trains nothing, but for the few steps of a probe, and touches no store: the data is read,
    tokenised and packed in a folder that is thrown away.
    """
    from components.shared.spec.file import load_spec
    from pipelines.programs.checking import image_cautions
    from pipelines.programs.planning import explain_deepspeed, plan_of
    from pipelines.screens.console import open_console
    from pipelines.screens.explain import explain_screen
    from pipelines.screens.plan import plan_screen
    from pipelines.screens.plan_markdown import plan_markdown

    if spec is None:
        if import_deepspeed is None:
            raise HaganeError("plan: SPEC is missing; name the run's spec, such as specs/demo.yaml")
        print(explain_deepspeed(import_deepspeed, None), end="")
        return

    with TemporaryDirectory() as folder:
        spec = spec_of(spec, Path(folder), with_rows=rows is not None)
        if rows is None:
            asked = checked(spec, overrides, here=False)
        else:
            asked = load_spec(spec, overrides or ())
        kept = out or (
            Path(folder) if html is not None or import_deepspeed is not None or explain else None
        )
        progress = open_console(stderr=True)
        where = probe_place(asked, here=probe, pod=probe_pod)
        made = plan_of(asked, progress, keep=kept, num_rows=rows, probe=where)
        cautions = (*made.cautions, *image_cautions(asked))
        made = made.model_copy(update={"cautions": cautions})
        if html is not None:
            html.write_bytes(((out or Path(folder)) / "page.html").read_bytes())
        if import_deepspeed is not None:
            print(explain_deepspeed(import_deepspeed, out or Path(folder)), end="")
            return
        if as_json:
            print(made.model_dump_json(indent=1))
            return
        if markdown:
            print(printable_lines(plan_markdown(made)), end="")
            return
        open_console().print(plan_screen(made))
        if explain and kept is not None:
            open_console().print(explain_screen(made, kept))


def probe_place(spec: "RunSpec", *, here: bool, pod: bool) -> "ProbePlace | None":
    """Where the steps are made. Raises HaganeError where there is no such place."""
    if here and pod:
        raise HaganeError(
            "plan: --probe makes its steps on this machine and --probe-pod in the cluster; one of "
            "them. Fix: leave one out"
        )
    if pod and spec.backend == "local":
        raise HaganeError(
            "--probe-pod: backend is 'local', which has no pods. Fix: set backend: pytorchjob or "
            "trainjob, or probe this machine by --probe"
        )
    if pod:
        return "pod"
    if here:
        return "here"
    return None


def checked(
    path: Path, overrides: list[str] | None, *, here: bool, in_images: bool = False
) -> "RunSpec":
    """The spec, with nothing known against it; one whose run is to go on `here` is not checked
    again when it has its report. `in_images`: all steps run in their images.

    Raises HaganeError with all problems, the file's and the world's.
    """
    from components.shared.spec.file import SpecProblems, load_spec
    from pipelines.programs.checking import has_report, image_problems, problems_of
    from pipelines.screens.run import open_console

    console = open_console(stderr=True)

    def problems_with(spec: "RunSpec") -> list[str]:
        if in_images:
            of_images = image_problems(spec)
        else:
            of_images = []
        in_cluster = not here and spec.backend != "local"
        others = problems_of(spec, here=here, in_images=in_images or in_cluster, console=console)
        return [*of_images, *others]

    try:
        spec = load_spec(path, overrides or ())
    except SpecProblems as error:
        if error.rest is None:
            rest = []
        else:
            rest = problems_with(error.rest)
        raise HaganeError(*error.problems, *rest) from None
    if here and has_report(spec):
        return spec
    problems = problems_with(spec)
    if problems:
        raise HaganeError(*problems)
    return spec
