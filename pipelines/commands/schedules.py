"""`hagane schedules plan|apply|list`. What is imported here is imported for `--help`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.kfp import Context, Endpoint, Namespace, TokenFile, connect, connect_to_read
from pipelines.commands.options import AsJson

if TYPE_CHECKING:
    from pipelines.finetune.compiling import CompiledPipeline

schedules = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Keep schedules in Git: what a file of them wants becomes recurring runs in Kubeflow
Pipelines.

Only recurring runs that carry the file's owner are ever touched. Each run of a schedule is a run of
its own: `<schedule>-<id>`.""",
)

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="The schedules, a YAML file; its specs are found beside it."
    ),
]
NoCatchUp = Annotated[
    bool,
    typer.Option(
        "--no-catch-up",
        help=(
            "A schedule that is turned on starts no run for a time that it missed while it was off."
        ),
    ),
]
Prune = Annotated[
    bool,
    typer.Option("--prune", help="Remove schedules of this owner that are gone from the file."),
]


@schedules.command()
def plan(
    file: File = Path("schedules.yaml"),
    prune: Prune = False,
    no_catch_up: NoCatchUp = False,
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Print what `apply` would change, and change nothing."""
    from components.shared.figures import plural
    from pipelines.schedules.changes import changes, owned_schedules, to_do
    from pipelines.schedules.file import load_schedules
    from pipelines.screens.as_json import print_json

    wanted = load_schedules(file)
    pipeline = _pinned_pipeline()
    kfp = connect_to_read(endpoint, namespace, token_file, context)
    owned = owned_schedules(kfp, wanted.owner)
    needed = changes(
        wanted, owned, version=pipeline.version_name, prune=prune, no_catch_up=no_catch_up
    )
    if as_json:
        print_json(
            [
                {"change": change.kind, "schedule": change.name, "lines": list(change.lines)}
                for change in needed
            ]
        )
        return
    for change in needed:
        print(f"{change.kind:13} {change.name}")
        for line in change.lines:
            print(f"{'':13}   {line}")
    num_changes = len(to_do(needed))
    if num_changes:
        would = f"apply would make {plural(num_changes, 'change')}"
    else:
        would = "apply would change nothing"
    print(f"{plural(len(wanted.schedules), 'schedule')} in {file}; {would}")


@schedules.command()
def apply(
    file: File = Path("schedules.yaml"),
    prune: Prune = False,
    no_catch_up: NoCatchUp = False,
    wait_minutes: Annotated[
        float,
        typer.Option(
            metavar="MINUTES",
            min=0,
            help="Wait so long for a schedule's active run before it is replaced.",
        ),
    ] = 0.0,
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    context: Context = None,
) -> None:
    """Make KFP's recurring runs what the file wants; applied twice, the second changes nothing.

    A changed schedule is replaced, as KFP can change none, but never while a run of it is active:
    it is waited for, or reported and left for the next apply (exit code 1). Crashes at any moment
    are healed by the next apply.
    """
    from components.shared.figures import plural
    from pipelines.kfp_api.versions import ensure_version
    from pipelines.schedules.changes import changes, owned_schedules, to_do
    from pipelines.schedules.file import load_schedules
    from pipelines.schedules.reconciler import Reconciler

    wanted = load_schedules(file)
    pipeline = _pinned_pipeline()
    kfp = connect(endpoint, namespace, token_file, context)
    owned = owned_schedules(kfp, wanted.owner)
    needed = changes(
        wanted, owned, version=pipeline.version_name, prune=prune, no_catch_up=no_catch_up
    )
    reconciler = Reconciler(
        kfp,
        wanted,
        ensure=lambda: ensure_version(kfp, pipeline),
        version=pipeline.version_name,
        tell=print,
    )
    reconciler.apply(needed, wait_s=wait_minutes * 60)
    num_changes = len(to_do(needed))
    if num_changes:
        made = f"{plural(num_changes, 'change')} made"
    else:
        made = "nothing to change"
    print(f"{plural(len(wanted.schedules), 'schedule')}; {made}")


@schedules.command("list")
def list_them(
    owner: Annotated[
        str, typer.Option(metavar="OWNER", help="Whose schedules, as the file names it.")
    ] = "hagane",
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """List an owner's schedules in KFP: when, on or off, which version of the pipeline, the newest
    run of each."""
    from pipelines.schedules.changes import owned_schedules
    from pipelines.schedules.screen import schedules_json, schedules_screen
    from pipelines.screens.as_json import print_json
    from pipelines.screens.run import open_console

    kfp = connect_to_read(endpoint, namespace, token_file, context)
    owned = owned_schedules(kfp, owner)
    if as_json:
        print_json(schedules_json(kfp, owned))
    else:
        open_console().print(schedules_screen(kfp, owned, owner))


def _pinned_pipeline() -> "CompiledPipeline":
    """The pipeline, its images pinned: what a schedule starts in a year must be what was tried
    today. Raises SpecError."""
    from components.shared.errors import SpecError
    from components.shared.job.images import read_images
    from pipelines.finetune.compiling import compiled_pipeline

    moving = read_images().moving()
    if moving:
        raise SpecError(*moving)
    return compiled_pipeline()
