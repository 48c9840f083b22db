"""`hagane compile`. What is imported here is imported for `--help`."""

from pathlib import Path
from typing import Annotated

import typer

from components.shared.errors import HaganeError


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
    from components.shared.job.images import read_images, refuse_local_images
    from pipelines.definitions.files import check_fresh, write_definitions
    from pipelines.finetune.compiling import compile_pipeline, compiled_pipeline

    refuse_local_images(read_images())
    if pinned:
        moving = read_images().moving()
    else:
        moving = []
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
