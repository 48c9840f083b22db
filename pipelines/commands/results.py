"""The commands of `hagane` about what a run ends with. What is imported here is imported for
`--help`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import AsJson, RunPlace, run_uri

if TYPE_CHECKING:
    from components.shared.store.storage import Store

Place = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="URI|SPEC",
        envvar="HAGANE_STORE",
        help="Where runs are: a folder, s3://bucket/prefix, or a spec.",
    ),
]
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Of the published model, as `publish.name` in the spec."),
]


def export(
    run: RunPlace,
    checkpoint: Annotated[
        str, typer.Option(metavar="last|best|EPOCH", help="Which committed checkpoint.")
    ] = "last",
    merge: Annotated[
        bool, typer.Option("--merge", help="Also merge the adapter into its base, as merged/.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="A new folder; by default named after run and checkpoint."
        ),
    ] = None,
) -> None:
    """Export a committed checkpoint of a finished training into a folder here, verified as in the
    pipeline.

    The run's own export stays as it is; export.checkpoint and export.merge in the spec change that.
    """
    from components.shared.step import open_run
    from components.shared.store.layout import CHECKPOINTS
    from components.shared.store.manifest import require_manifest
    from pipelines.programs.component_program import output_of, require_training

    require_training()
    uri = run_uri(run)
    store, _ = open_run(uri)
    require_manifest(store, CHECKPOINTS)
    name = uri.rstrip("/").rpartition("/")[2]
    if checkpoint.isdigit():
        of_checkpoint = f"epoch-{checkpoint}"
    else:
        of_checkpoint = checkpoint
    folder = out or Path(f"{name}-{of_checkpoint}")
    arguments = [
        "--run",
        uri,
        "--out",
        str(folder),
        "--checkpoint",
        checkpoint,
        *(["--merge", "true"] if merge else []),
    ]
    output_of("components.export_adapter", *arguments)
    for part in sorted(folder.iterdir()):
        print(part)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN ...", help="Finished runs: specs or URIs, 2 to 8."),
    ],
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page with the curves over each other."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare finished runs: what was asked differently, and what came of it."""
    import json

    from pipelines.programs.component_program import output_of
    from pipelines.screens.run import compare_screen, open_console

    arguments = [run_uri(run) for run in runs]
    text = output_of(
        "components.write_report.compare", *arguments, *(["--html", str(html)] if html else [])
    )
    found = json.loads(text.splitlines()[-1])
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        open_console().print(compare_screen(found))


def published(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    store: Place = "",
    as_json: AsJson = False,
) -> None:
    """List published models: versions, which is the latest, the run and the losses of each."""
    from components.shared.spec.file import check_name
    from components.shared.store.published import versions
    from pipelines.screens.as_json import print_json, versions_json
    from pipelines.screens.run import open_console, published_screen

    if name is not None:
        check_name(name, "NAME")
    opened = _opened(store)
    found = versions(opened, name)
    if as_json:
        print_json(versions_json(found, store_uri=opened.uri))
    else:
        open_console().print(published_screen(found, opened.uri))


def publish(
    run: RunPlace,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where; without it, the spec's publish.name.")
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Also make a run and a model version in this MLflow."),
    ] = None,
    model_registry: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Also make an entry in this Kubeflow Model Registry."),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Also push the export to this repository of the Hugging Face hub.",
        ),
    ] = None,
) -> None:
    """Publish the export of a finished run: its next version, and the latest.

    Refused unless it was verified and its gate is met, as in the pipeline, which does the same
    where the spec has publish.name. Of a run that was published before, only entries elsewhere are
    made that are not there.
    """
    import shutil

    from components.shared.errors import SpecError, after_a_change
    from components.shared.spec.file import check_name
    from components.shared.step import open_run, work_folder
    from components.shared.store.publishing import publish_run, store_of, version_of_run
    from pipelines.registries.base import published_version
    from pipelines.registries.entries import check_all, entries_of, named_registries

    if name is not None:
        check_name(name, "--name")
    registries = named_registries(mlflow=mlflow, model_registry=model_registry, hub=push_to_hub)
    uri = run_uri(run)
    opened, spec = open_run(uri)
    place = name or spec.publish.name
    if place is None:
        raise SpecError(
            "publish: found no name, neither --name nor publish.name in the run's spec. Fix: add "
            "--name NAME"
        )
    check_all(registries, store_of(opened))
    work = work_folder(uri, "publish")
    try:
        move = publish_run(opened, spec, name=place, work=work)
        before = f"{place}: this export was published before; nothing is changed"
        print(before if move is None else f"{place} v{move.version}  {move.uri}")
        if registries:
            with after_a_change():
                number = version_of_run(opened, spec, name=place)
                store = store_of(opened)
                version = published_version(store, opened, spec, name=place, number=number)
                for line in entries_of(version, registries, work):
                    print(line)
    finally:
        shutil.rmtree(work)


def rollback(
    name: Name,
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", min=1, help="Its number; without it, the one before."),
    ] = None,
    store: Place = "",
) -> None:
    """Make an earlier version of a published model the latest again. No version is removed."""
    from components.shared.spec.file import check_name
    from components.shared.store.published import roll_back

    check_name(name, "NAME")
    move = roll_back(_opened(store), name, version)
    print(f"{name} v{move.version}  {move.uri}")


def logs(
    run: RunPlace,
    step: Annotated[
        str | None,
        typer.Argument(metavar="[STEP]", help="Only this step, such as launch_training."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what Kubeflow Pipelines itself printed.")
    ] = False,
) -> None:
    """Print the log of a run: what its steps printed under `hagane run` on this machine, the log of
    its pods in a cluster, and why steps failed.

    Of a run in Kubeflow Pipelines, `hagane runs ID --log STEP` prints what KFP keeps.
    """
    from components.shared.printable import printable_lines
    from components.shared.step import open_run
    from pipelines.screens.run_log import log_lines

    opened, spec = open_run(run_uri(run))
    for line in log_lines(opened, spec.run_uri, step, everything=everything):
        print(printable_lines(line))


def chat(
    run: RunPlace,
    tokens: Annotated[
        int, typer.Option(metavar="COUNT", min=1, max=4096, help="Longest answer.")
    ] = 200,
    tuned_only: Annotated[
        bool, typer.Option("--tuned-only", help="Do not ask the base model.")
    ] = False,
) -> None:
    """Ask the base and the tuned model of a finished run, one line a question; an empty line or
    Ctrl-D ends it.

    Both are on this machine's GPU, or on its CPU, which is enough for small models. They remember
    what was said.
    """
    from components.shared.step import open_run
    from components.shared.store.layout import export_folder
    from components.shared.store.manifest import require_manifest
    from pipelines.programs.component_program import require_training, talk_to

    require_training()
    uri = run_uri(run)
    store, spec = open_run(uri)
    require_manifest(store, export_folder(spec.training.method))
    arguments = [
        "--run",
        uri,
        "--tokens",
        str(tokens),
        *(["--tuned-only"] if tuned_only else []),
    ]
    raise typer.Exit(talk_to("components.evaluate.chat", *arguments))


def _opened(place: str) -> "Store":
    """The store that --store names. Raises SpecError where it names none."""
    from components.shared.errors import SpecError
    from components.shared.spec.file import load_spec
    from components.shared.store.storage import open_store

    if not place:
        raise SpecError(
            "--store: missing. Fix: name the runs' store or a spec by --store, or set $HAGANE_STORE"
        )
    return open_store(load_spec(Path(place)).store if Path(place).is_file() else place)


def add_to(app: typer.Typer) -> None:
    for command in (export, compare, published, publish, rollback, logs, chat):
        app.command()(command)
