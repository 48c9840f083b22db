"""`hagane doctor` and `hagane reap`. What is imported here is imported for `--help`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from components.shared.errors import HaganeError
from pipelines.commands.kfp import Context, Endpoint, TokenFile
from pipelines.commands.options import AsJson, Overrides, run_uri


def doctor(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC]", help="The run's spec; without it, the cluster alone."),
    ] = None,
    overrides: Overrides = None,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of the spec's or the kubeconfig's.")
    ] = None,
    launcher: Annotated[
        str,
        typer.Option(
            metavar="ACCOUNT",
            help="Whose rights to look at; `self`: your own. In a pod it is always the pod's.",
        ),
    ] = "hagane-launcher",
    seconds: Annotated[
        int,
        typer.Option(
            metavar="COUNT", min=10, help="Longest wait for the small pod that looks from inside."
        ),
    ] = 300,
    gpu: Annotated[
        bool,
        typer.Option(
            "--gpu", help="Check the nodes too, by a job of the run's own shape; two minutes."
        ),
    ] = False,
    gpu_nodes: Annotated[
        Literal["one", "all"], typer.Option(help="With --gpu: how many of the run's nodes.")
    ] = "all",
    endpoint: Endpoint = None,
    token_file: TokenFile = None,
    context: Context = None,
    print_fixes: Annotated[
        bool,
        typer.Option(
            "--print-fixes",
            help=(
                "Print missing objects as YAML for `kubectl apply`; fill in REPLACE_ME first. The "
                "table is on stderr."
            ),
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find what in the cluster would stop a run, and say how to fix it.

    With a spec whose backend is a cluster a small pod, made as the workers are, tries image,
    environment and store; it is deleted. With --gpu drivers, GPUs, NCCL and a small training are
    tried on the nodes, or on this machine where the backend is local.
    """
    from components.shared.spec.file import load_spec
    from pipelines.kfp_api.connection import Asked
    from pipelines.programs.doctor import diagnose, diagnose_here, findings_table
    from pipelines.programs.missing_objects import fixes_text, place_of
    from pipelines.screens.as_json import findings_json, print_json
    from pipelines.screens.run import open_console

    if print_fixes and as_json:
        raise HaganeError(
            "doctor: --print-fixes prints YAML and --json prints JSON; one of them. Fix: leave one "
            "out"
        )
    if spec is None:
        asked = None
    else:
        asked = load_spec(spec, overrides or ())
    if gpu and asked is None:
        raise HaganeError(
            "doctor: --gpu needs a spec, which says how many nodes and GPUs to check. Fix: name one"
        )
    if asked is not None and asked.backend == "local":
        here = asked
    else:
        here = None
    if here is not None and not gpu:
        raise HaganeError(
            "backend: got 'local', which needs no cluster; set backend: pytorchjob, or --set "
            "backend=pytorchjob, or check this machine by --gpu"
        )
    progress, kfp = open_console(stderr=True), Asked(endpoint, None, token_file, context)
    if here is not None:
        findings = list(diagnose_here(here, progress))
    else:
        if gpu:
            nodes = gpu_nodes
        else:
            nodes = None
        found = diagnose(
            asked,
            progress,
            namespace=namespace,
            launcher=launcher,
            seconds=seconds,
            kfp=kfp,
            gpu_nodes=nodes,
        )
        findings = list(found)
    if print_fixes:
        open_console(stderr=True).print(findings_table(findings))
        print(fixes_text(findings, place_of(findings, asked)), end="")
    elif as_json:
        print_json(findings_json(findings))
    else:
        open_console().print(findings_table(findings))
    failed = [finding.line for finding in findings if finding.state == "failed"]
    if failed:
        raise HaganeError(*failed)


def reap(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run, by its spec or its URI: its job alone, at once, though it is followed.",
        ),
    ] = None,
    older_than: Annotated[
        float,
        typer.Option(
            metavar="MINUTES",
            min=2,
            help="Leave alone what a launcher has marked within this many minutes.",
        ),
    ] = 15.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be deleted.")
    ] = False,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of the kubeconfig's.")
    ] = None,
    backend: Annotated[
        Literal["pytorchjob", "trainjob"], typer.Option(help="The kind of job to look at.")
    ] = "pytorchjob",
) -> None:
    """Delete jobs in the cluster that nobody follows any more, and those that are over as long as
    their spec keeps them.

    A launcher marks its job twice a minute; one that was killed leaves it running. With RUN, the
    job of that run, in the namespace and of the kind that its spec says.
    """
    from pipelines.programs.reaping import reaped

    if run is not None and (dry_run or namespace is not None):
        raise HaganeError(
            "reap: --dry-run and --namespace look for jobs that nobody follows; leave them out, or "
            "RUN"
        )
    if run is not None:
        which = ["--run", run_uri(run)]
    else:
        which = ["--older-than", str(older_than), "--backend", backend]
    which += [
        *(["--dry-run"] if dry_run else []),
        *(["--namespace", namespace] if namespace else []),
    ]
    for line in reaped(which):
        print(line)
