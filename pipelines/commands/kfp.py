"""The commands of `hagane` that talk to Kubeflow Pipelines. What is imported here is imported for
`--help`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.options import EXPERIMENT, AsJson, Overrides, SpecPath

if TYPE_CHECKING:
    from pipelines.kfp_api.client import KfpClient

Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help=(
            "KFP's address, such as http://localhost:8080; else `$HAGANE_KFP_ENDPOINT`, else the "
            "file."
        ),
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        help="Your namespace, where the server has many users; else `$HAGANE_KFP_NAMESPACE`.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help=(
            "A file that holds the token; else `$HAGANE_KFP_TOKEN`, else the file, else the pod's."
        ),
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="A server of ~/.config/hagane/kfp.yaml, else the current one there.",
    ),
]
Experiment = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="The experiment that the run belongs to; made where it is not there."
    ),
]


def connect(
    endpoint: str | None, namespace: str | None, token_file: Path | None, context: str | None
) -> "KfpClient":
    """The client for what these flags, the environment and the file name. Nothing is asked of the
    server yet."""
    from pipelines.kfp_api.client import KfpClient
    from pipelines.kfp_api.connection import Asked, find_connection

    return KfpClient(find_connection(Asked(endpoint, namespace, token_file, context)))


def connect_to_read(
    endpoint: str | None, namespace: str | None, token_file: Path | None, context: str | None
) -> "KfpClient":
    """As `connect`, for a command that changes nothing or cancels: a server too old for the
    pipeline is a warning on stderr."""
    from pipelines.screens.run import open_console

    kfp = connect(endpoint, namespace, token_file, context)
    warning = kfp.warning_of_age
    if warning is not None:
        open_console(stderr=True).print(f"warning: {warning}", soft_wrap=True)
    return kfp


def submit(
    spec: SpecPath,
    overrides: Overrides = None,
    experiment: Experiment = EXPERIMENT,
    run_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What KFP calls the run; the spec's name unless given."),
    ] = None,
    service_account: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=(
                "The account that the steps run under, such as hagane-launcher; KFP's own unless "
                "given."
            ),
        ),
    ] = "",
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Follow the run to its end; the exit code is then the run's."),
    ] = False,
    no_plan: Annotated[
        bool, typer.Option("--no-plan", help="Leave the plan, and what it refuses, to the cluster.")
    ] = False,
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    context: Context = None,
) -> None:
    """Start a run in Kubeflow Pipelines.

    Checks and plans first; uploads the pipeline as a new version only where its content is new;
    prints the run's link. Refused while a run of the same folder is active.
    """
    from components.shared.job.images import read_images, refuse_local_images
    from pipelines.finetune.compiling import compiled_pipeline
    from pipelines.screens.run import open_console
    from pipelines.submit.following import follow_run, print_finish, step_names
    from pipelines.submit.submitting import check_for_cluster
    from pipelines.submit.submitting import submit as submit_run

    refuse_local_images(read_images())
    kfp = connect(endpoint, namespace, token_file, context)
    reported = open_console(stderr=True)
    checked = check_for_cluster(spec, overrides or [], reported, with_plan=not no_plan)
    for note in checked.notes:
        reported.print(f"note: {note}", soft_wrap=True)
    pipeline = compiled_pipeline()
    name = run_name or checked.spec.name
    begun = submit_run(
        kfp,
        checked.spec,
        pipeline,
        experiment=experiment,
        run_name=name,
        service_account=service_account,
    )
    console = open_console()
    if checked.verdict:
        console.print(f"plan     {checked.verdict}", soft_wrap=True)
    console.print(
        f"version  {begun.version.name} ({'uploaded' if begun.version.is_new else 'was there'})",
        soft_wrap=True,
    )
    console.print(
        f"run      {begun.run_name} {begun.run_id} in experiment {begun.experiment}", soft_wrap=True
    )
    console.print(f"link     {begun.link}", soft_wrap=True)
    if wait:
        follow_run(kfp, begun.run_id, checked.spec.run_uri, step_names(pipeline), console)
        print_finish(checked.spec.run_uri, console)


def runs(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Show the steps of this run, by its id.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only runs of this experiment.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", min=1, help="The newest COUNT runs.")] = 20,
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            metavar="STEP",
            help="Print the log of a step of RUN, such as claim_run (or claim-run).",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="With --log: go on until the step has ended.")
    ] = False,
    cancel: Annotated[
        bool,
        typer.Option(
            "--cancel",
            help=(
                "Cancel RUN: its training stores a checkpoint, and its job is gone when this "
                "returns."
            ),
        ),
    ] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Print the address of RUN in KFP's UI, and nothing else.")
    ] = False,
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of this pipeline in Kubeflow Pipelines, newest first; with RUN, the steps of
    one and why it failed.

    How far a training is, and what is finished in the store, `hagane status SPEC` shows.
    """
    from pipelines.screens.as_json import print_json
    from pipelines.screens.run import open_console
    from pipelines.submit.runs_screen import run_json, run_screen, runs_json, runs_screen

    _check_options(run, log=log, follow=follow, cancel=cancel, open_page=open_page)
    kfp = connect_to_read(endpoint, namespace, token_file, context)
    if as_json and log is None and not cancel and not open_page:
        print_json(runs_json(kfp, experiment, limit) if run is None else run_json(kfp, run))
    elif run is None:
        open_console().print(runs_screen(kfp, experiment, limit))
    elif log is not None:
        _print_log(kfp, run, log, follow=follow)
    elif cancel:
        _cancel(kfp, run)
    elif open_page:
        kfp.ask(f"look at run {run}", kfp.runs.run_service_get_run, run)
        print(kfp.run_link(run))
    else:
        open_console().print(run_screen(kfp, run))


def _check_options(
    run: str | None, *, log: str | None, follow: bool, cancel: bool, open_page: bool
) -> None:
    """Raises SpecError for options that do not go together."""
    from components.shared.errors import SpecError

    given = [
        name
        for name, is_given in (
            ("--log", log is not None),
            ("--cancel", cancel),
            ("--open", open_page),
        )
        if is_given
    ]
    if len(given) > 1:
        raise SpecError(
            f"runs: found {' and '.join(given)}, allowed one of them. Fix: leave the others out"
        )
    if given and run is None:
        raise SpecError(
            f"runs: found {given[0]} without a run, allowed with one. Fix: name it by its id, as "
            "`hagane runs` shows it"
        )
    if follow and log is None:
        raise SpecError("runs: found --follow without --log, allowed with it. Fix: add --log STEP")


def _print_log(kfp: "KfpClient", run_id: str, step: str, *, follow: bool) -> None:
    from components.shared.printable import printable_lines
    from pipelines.kfp_api.step_log import follow_step_log, step_log
    from pipelines.submit.runs_screen import known_step, look_at_run

    _, view = look_at_run(kfp, run_id)
    step = known_step(step, view)
    if not follow:
        print(printable_lines(step_log(kfp, view, step)), end="")
        return
    for piece in follow_step_log(kfp, lambda: look_at_run(kfp, run_id)[1], step):
        print(printable_lines(piece), end="", flush=True)


def _cancel(kfp: "KfpClient", run_id: str) -> None:
    from components.shared.printable import printable
    from pipelines.kfp_api.active_runs import NO_FOLDER, folder_of
    from pipelines.submit.cancelling import cancel_run
    from pipelines.submit.runs_screen import look_at_run

    folder = folder_of(look_at_run(kfp, run_id)[0])
    if folder == NO_FOLDER:
        run_uri = None
    else:
        run_uri = folder
    cancel_run(
        kfp,
        lambda: look_at_run(kfp, run_id)[1],
        run_uri,
        tell=lambda line: print(printable(line), flush=True),
    )


Definitions = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="The folder that `hagane compile --manifests DIR` writes."),
]


def apply(
    folder: Definitions,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Also remove hagane's versions that DIR does not have and nothing uses."
        ),
    ] = False,
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    context: Context = None,
) -> None:
    """Bring the definitions of a folder in Git into Kubeflow Pipelines, pipelines first; what is
    there stays as it is.

    The version that this code compiles to is uploaded last, as KFP's UI offers the newest; another
    one that it offers is reported. For KFP in its database mode. In its Kubernetes-native mode Argo
    CD, Flux or `kubectl apply -R -f DIR` do it.
    """
    from pipelines.definitions.applying import apply_definitions, newest_version, prune_versions
    from pipelines.definitions.files import read_definitions
    from pipelines.finetune.compiling import compiled_pipeline

    wanted = read_definitions(folder)
    compiled = compiled_pipeline()
    kfp = connect(endpoint, namespace, token_file, context)
    for what, change in apply_definitions(kfp, wanted, current=compiled.version_name):
        print(f"{what}  {change}")
    for what, change in prune_versions(kfp, wanted) if prune else ():
        print(f"{what}  {change}")
    offered = newest_version(kfp, compiled.name)
    if offered not in (None, compiled.version_name):
        print(
            f"note: KFP's UI offers {offered}, the newest uploaded; this code compiles to "
            f"{compiled.version_name}"
        )


def diff(
    folder: Definitions,
    kubernetes: Annotated[
        bool,
        typer.Option(
            "--kubernetes",
            help="Compare with the objects in the cluster of the kubeconfig in use, by kubectl.",
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Count versions that only the cluster has as a difference."),
    ] = False,
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    context: Context = None,
) -> None:
    """Compare the definitions of a folder in Git with what Kubeflow Pipelines has.

    Exit code 0: the same. 1: something differs, as shown. 2: it could not be compared. Nothing is
    changed.
    """
    from components.shared.figures import plural
    from pipelines.definitions.diff import differences, in_kfp, in_kubernetes
    from pipelines.definitions.files import read_definitions

    wanted = read_definitions(folder)
    if kubernetes:
        there = in_kubernetes(wanted, namespace)
    else:
        there = in_kfp(connect_to_read(endpoint, namespace, token_file, context), wanted)
    found = list(differences(wanted, there))
    for each in found:
        print(each.title)
    counted = [each for each in found if prune or each.kind != "only in the cluster"]
    reported = plural(len(counted), "difference")
    print(
        f"{reported}; hagane apply {folder} fixes them" if counted and not kubernetes else reported
    )
    if counted:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """The commands are in `hagane`."""
    commands: tuple[Callable[..., Any], ...] = (submit, runs, apply, diff)
    for command in commands:
        app.command()(command)
