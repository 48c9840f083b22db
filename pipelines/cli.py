"""`hagane`: the command line. The one place where errors are caught and reported."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from components.shared.errors import HaganeError
from pipelines.commands import cluster as cluster_commands
from pipelines.commands import kfp as kfp_commands
from pipelines.commands import results as result_commands
from pipelines.commands import run as run_commands
from pipelines.commands import schedules as schedule_commands
from pipelines.commands import stored
from pipelines.commands.compile import compile as compile_pipeline
from pipelines.commands.data import data
from pipelines.commands.global_options import (
    QUIET,
    VERBOSE,
    globals_first,
    use_demo_environment,
    use_env_file,
)
from pipelines.commands.imports import import_file
from pipelines.commands.init import init
from pipelines.commands.models import models
from pipelines.commands.topics import show_help

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
command resumes.

`-v`, `-q` and `--env-file` may stand before or after the command. `hagane help` lists how-to
pages.""",
)


def print_version(asked: bool) -> None:
    if not asked:
        return
    from components.shared.code_version import code_version

    code = code_version()
    if code.commit:
        commit = f" ({code.commit})"
    else:
        commit = ""
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
                "NAME=value lines to put into the environment first, over what is there, such as "
                "the AWS_ variables of an S3 store."
            ),
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Print the traceback of an error too, for a report."),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print results and errors only, no progress or notes."),
    ] = False,
) -> None:
    if quiet:
        os.environ[QUIET] = "1"
    if verbose:
        os.environ[VERBOSE] = "1"
    if env_file is None:
        use_demo_environment(sys.argv[1:])
        return
    use_env_file(env_file)


app.command()(init)
app.command()(run_commands.run)
app.command()(run_commands.plan)
app.command()(data)
app.command()(stored.status)
app.command()(stored.checkpoints)
app.command()(stored.gc)
app.command()(models)
app.command("compile")(compile_pipeline)
app.command("import")(import_file)
app.command("help")(show_help)
result_commands.add_to(app)
app.command()(cluster_commands.doctor)
app.command()(cluster_commands.reap)
kfp_commands.add_to(app)
app.add_typer(schedule_commands.schedules, name="schedules")


def main() -> None:
    """Runs the command line; a HaganeError becomes one line a problem on stderr, and its exit
    code."""
    try:
        app(args=globals_first(sys.argv[1:]))
    except HaganeError as error:
        if VERBOSE in os.environ:
            traceback.print_exception(error)
        for problem in error.lines:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
