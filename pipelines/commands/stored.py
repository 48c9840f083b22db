"""The commands of `hagane` about what a run has in its store. What is imported here is imported for
`--help`."""

from typing import TYPE_CHECKING, Annotated

import typer

from components.shared.printable import printable
from pipelines.commands.options import AsJson, Overrides, RunPlace, run_uri

if TYPE_CHECKING:  # pydantic would take half of the time of --help
    from components.shared.spec.run_spec import RunSpec
    from components.shared.store.storage import Store


def status(run: RunPlace, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show which steps of a run are finished, and its committed checkpoints.

    `--set` is for a spec, such as `--set name=other`.
    """
    from components.shared.step import open_run
    from pipelines.screens.as_json import print_json, status_json
    from pipelines.screens.run import open_console, status_screen

    store, claimed = open_run(run_uri(run, overrides))
    if as_json:
        print_json(status_json(store, claimed))
    else:
        open_console().print(status_screen(store, claimed))


def checkpoints(
    run: RunPlace,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file again and compare size and sha256.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List a run's checkpoints: step, bytes, losses, committed or not, and why each stays."""
    from pipelines.checkpoints.listing import checkpoint_table
    from pipelines.screens.as_json import checkpoints_json, print_json
    from pipelines.screens.run import open_console, verify_checkpoints

    store, spec = _opened(run)
    console = open_console(stderr=as_json)
    if as_json:
        print_json(checkpoints_json(store, spec.checkpoints.keep))
    else:
        console.print(checkpoint_table(store, spec.checkpoints.keep))
    if verify:
        verify_checkpoints(store, console)


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


def _opened(run: str) -> "tuple[Store, RunSpec]":
    """A run's folder and the spec it was claimed with, by a spec file or by its URI."""
    from components.shared.step import open_run

    return open_run(run_uri(run))
