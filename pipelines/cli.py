"""`hagane`: the command line. The one place where errors are caught and reported."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from components.shared.errors import HaganeError
from components.shared.printable import printable, printable_lines
from pipelines.commands import cluster as cluster_commands
from pipelines.commands import data as data_commands
from pipelines.commands import kfp as kfp_commands
from pipelines.commands import results as result_commands
from pipelines.commands import schedules as schedule_commands
from pipelines.commands.imports import import_file, spec_of
from pipelines.commands.options import AsJson, Overrides, RunPlace, SpecPath, run_uri

if TYPE_CHECKING:  # pydantic would take half of the time of --help
    from components.shared.spec.run_spec import RunSpec
    from components.shared.store.storage import Store

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Fine-tune an open language model as one spec says: data, plan, training, a verified
adapter, a report.

A spec is a YAML file; `specs/demo.yaml` is one to copy. `hagane plan SPEC` shows what would
happen and why; `hagane run SPEC` runs it on this machine. After a crash, the same command resumes
from the newest committed checkpoint.

Exit codes: 0 success; 2 an error in what was given, one line per problem, before anything was
started; 1 something that had started failed; 130 and 143 stopped by Ctrl-C or SIGTERM, and the same
command resumes.""",
)


def print_version(asked: bool) -> None:
    if not asked:
        return
    from components.shared.code_version import code_version

    code = code_version()
    commit = f" ({code.commit})" if code.commit else ""
    print(f"hagane {code.version or 'that is not installed'}{commit}")
    raise typer.Exit


@app.callback()
def before_any_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=print_version,
            is_eager=True,
            help="Print the version, and the commit of a checkout, and exit.",
        ),
    ] = False,
    env_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="HAGANE_ENV_FILE",
            help=(
                "NAME=value lines to put into the environment first, such as the AWS_ variables "
                "of an S3 store."
            ),
        ),
    ] = None,
) -> None:
    if env_file is not None:
        from dotenv import load_dotenv

        if not load_dotenv(env_file):
            raise HaganeError(f"--env-file: {env_file} is not there or sets nothing")


@app.command()
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
) -> None:
    """Run the whole pipeline on this machine.

    Checks everything that can be known first. What is finished already is not done again.
    """
    from components.shared.step import work_folder
    from components.shared.store.storage import open_store
    from pipelines.local.running import run_in_containers, run_locally
    from pipelines.screens.run import open_console, print_end

    asked = _checked(spec, overrides, here=True)
    console = open_console()
    if runner == "docker":
        run_in_containers(asked, console, uid=user)
    else:
        run_locally(asked, console)
    print_end(console, open_store(asked.run_uri), work_folder(asked.run_uri, "report"))


@app.command()
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
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a comment on a pull request.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show whether it fits, with which ZeRO stage, in how many steps and hours; every value with
    its reason.

    Trains nothing and touches no store: the data is read, tokenised and packed in a folder that is
    thrown away.
    """
    from components.shared.spec.file import load_spec
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
        asked = (
            _checked(spec, overrides, here=False)
            if rows is None
            else load_spec(spec, overrides or ())
        )
        kept = out or (
            Path(folder) if html is not None or import_deepspeed is not None or explain else None
        )
        made = plan_of(asked, open_console(stderr=True), keep=kept, num_rows=rows)
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


@app.command()
def status(spec: SpecPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show which steps of a run are finished, and its committed checkpoints."""
    from components.shared.spec.file import load_spec
    from components.shared.step import open_run
    from pipelines.commands.as_json import print_json, status_json
    from pipelines.screens.run import open_console, status_screen

    store, claimed = open_run(load_spec(spec, overrides or ()).run_uri)
    if as_json:
        print_json(status_json(store, claimed))
    else:
        open_console().print(status_screen(store, claimed))


@app.command()
def checkpoints(
    run: RunPlace,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file again and compare size and sha256.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List a run's checkpoints: step, bytes, losses, committed or not, and why each stays."""
    from pipelines.checkpoints.listing import checkpoint_table
    from pipelines.commands.as_json import checkpoints_json, print_json
    from pipelines.screens.run import open_console, verify_checkpoints

    store, spec = _opened(run)
    console = open_console(stderr=as_json)
    if as_json:
        print_json(checkpoints_json(store, spec.checkpoints.keep))
    else:
        console.print(checkpoint_table(store, spec.checkpoints.keep))
    if verify:
        verify_checkpoints(store, console)


@app.command()
def gc(
    run: RunPlace,
    older_than: Annotated[
        float,
        typer.Option(
            metavar="HOURS",
            min=0,
            help="Leave alone what an attempt wrote to within this many hours.",
        ),
    ] = 24.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
) -> None:
    """Remove what killed trainings left of checkpoints, files without a manifest; and uploads
    broken off anywhere in the run.

    A committed checkpoint is never touched. Nothing of a training running is, as long as it writes
    more often than `--older-than`.
    """
    from datetime import UTC, datetime, timedelta

    from pipelines.checkpoints.orphans import find_orphans, remove_orphans

    store, _ = _opened(run)
    orphans = find_orphans(store, older_than=timedelta(hours=older_than), now=datetime.now(UTC))
    found = [*orphans.objects, *orphans.unfinished]
    for key in (each.key for each in found) if dry_run else remove_orphans(store, orphans):
        print(printable(f"{'would remove' if dry_run else 'removed'} {store.uri}/{key}"))
    print(
        f"{len(orphans.objects)} files ({orphans.num_bytes:,} bytes), {len(orphans.unfinished)} "
        "unfinished uploads"
    )


@app.command()
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
    from pipelines.commands.as_json import models_json, print_json
    from pipelines.screens.run import models_screen, open_console

    found = matching_families(words or ())
    if as_json:
        print_json(models_json(found))
    else:
        open_console().print(models_screen(found))


@app.command()
def compile(
    target: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Where the YAML goes; not written with --manifests."),
    ] = Path("build/finetune.yaml"),
    pinned: Annotated[
        bool,
        typer.Option(
            "--pinned",
            help=(
                "Refuse images that are not pinned by digest: for a schedule, as KFP caches by "
                "name."
            ),
        ),
    ] = False,
    manifests: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a Pipeline and a PipelineVersion for Git instead, one object a file.",
        ),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --manifests: the objects' namespace.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="With --manifests: remove the files of older versions.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help=(
                "With --manifests: write nothing; exit code 1 when DIR is not what would be "
                "written."
            ),
        ),
    ] = False,
) -> None:
    """Write the pipeline as KFP YAML for a cluster: the same bytes every time, images as
    images/images.yaml names them.

    Prints the file and its version, which changes with anything in it. `$HAGANE_IMAGES` names
    another file of images.
    """
    from components.shared.job.images import read_images
    from pipelines.definitions.files import check_fresh, write_definitions
    from pipelines.finetune.compiling import compile_pipeline, compiled_pipeline

    moving = read_images().moving() if pinned else []
    if moving:
        raise HaganeError(*moving)
    if manifests is None and (check or prune or namespace is not None):
        raise HaganeError(
            "compile: --check, --prune and --namespace are about definitions; name their folder by "
            "--manifests DIR"
        )
    if manifests is None:
        print(f"{target}  version {compile_pipeline(target)}")
    elif check:
        check_fresh(manifests, compiled_pipeline(), namespace)
        print(f"{manifests} is what this pipeline is compiled to")
    else:
        for path, change in write_definitions(
            manifests, compiled_pipeline(), namespace, prune=prune
        ):
            print(f"{change:9}  {manifests / path}")


app.command()(data_commands.data)
app.command("import")(import_file)
result_commands.add_to(app)
app.command()(cluster_commands.doctor)
app.command()(cluster_commands.reap)
kfp_commands.add_to(app)
app.add_typer(schedule_commands.schedules, name="schedules")


def _opened(run: str) -> "tuple[Store, RunSpec]":
    """A run's folder and the spec it was claimed with, by a spec file or by its URI."""
    from components.shared.step import open_run

    return open_run(run_uri(run))


def _checked(path: Path, overrides: list[str] | None, *, here: bool) -> "RunSpec":
    """The spec, with nothing known against it; one whose run is to go on `here` is not checked
    again when it has its report.

    Raises HaganeError with all problems, the file's and the world's.
    """
    from components.shared.spec.file import SpecProblems, load_spec
    from pipelines.programs.checking import has_report, problems_of
    from pipelines.screens.run import open_console

    console = open_console(stderr=True)
    try:
        spec = load_spec(path, overrides or ())
    except SpecProblems as error:
        rest = [] if error.rest is None else problems_of(error.rest, here=here, console=console)
        raise HaganeError(*error.problems, *rest) from None
    if here and has_report(spec):
        return spec
    problems = problems_of(spec, here=here, console=console)
    if problems:
        raise HaganeError(*problems)
    return spec


def main() -> None:
    """Runs the command line; a HaganeError becomes one line a problem on stderr, and its exit
    code."""
    try:
        app()
    except HaganeError as error:
        for problem in error.lines:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
