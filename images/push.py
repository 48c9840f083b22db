"""Puts the built images into a registry and their digests into images.yaml: `python -m images.push
REGISTRY`.

Every name that `hagane compile` writes is then `REGISTRY/image@sha256:…`. images.yaml is written
once, after the last image; the digest of an image that is not built here, which a person wrote,
stays. `$HAGANE_PUSH_FLAGS` goes to the engine's `push` as it is.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from components.shared.errors import HaganeError
from components.shared.job.images import IN_THE_REPOSITORY, Images, read_images
from images.bake import built_here
from images.contents import labels
from pipelines.local.engine import Engine, find_engine

DIGESTS = r"(?m)^digests:.*(\n[ \t]+.*)*$"
"""The key with its lines."""
REVISION = "org.opencontainers.image.revision"


def push_all(engine: Engine, images: Images, registry: str) -> dict[str, str]:
    """Every image is in the registry under its tag, that for GPUs if it is on this machine, one
    that is not built here only if it has no digest. Returns their digests there.

    Raises:
        HaganeError: an image is not built, or was built from files that no commit has: one line
            each, before the first push; or a push failed.
    """
    wanted = {
        *images.components.values(),
        *([images.train_on_gpus] if images.train_on_gpus else []),
    }
    wanted -= made_elsewhere(images).keys()
    local = {name: f"{images.repository}/{name}:{images.tag}" for name in sorted(wanted)}
    names = [
        name for name in local if name != images.train_on_gpus or engine.has_image(local[name])
    ]
    problems = [problem for name in names if (problem := why_not(engine, local[name])) is not None]
    built_from = {
        labels(engine, local[name]).get(REVISION, "nobody knows what")
        for name in names
        if not problems
    }
    if len(built_from) > 1:
        found = " and ".join(sorted(built_from))
        problems.append(
            f"images: were built from {found}, must be from one commit; run `make images "
            "images-cuda`"
        )
    if problems:
        raise HaganeError(*problems)
    return {name: push(engine, local[name], f"{registry}/{name}:{images.tag}") for name in names}


def made_elsewhere(images: Images) -> dict[str, str]:
    """Image that the bake file does not build -> the digest that a person wrote."""
    built = built_here()
    return {name: digest for name, digest in images.digests.items() if name not in built}


def why_not(engine: Engine, name: str) -> str | None:
    if not engine.has_image(name):
        return f"image {name}: is not on this machine; run `make images`"
    built_from = labels(engine, name).get(REVISION, "")
    if built_from.endswith("-dirty"):
        return (
            f"image {name}: was built from {built_from}, must be from a commit as it is; commit, "
            "then run `make images`"
        )
    return None


def push(engine: Engine, name: str, target: str) -> str:
    """The image is in the registry as `target`. Returns its digest there, which is not the local
    one where layers are packed anew."""
    engine.output("tag", name, target)
    flags = shlex.split(os.environ.get("HAGANE_PUSH_FLAGS", ""))
    with tempfile.TemporaryDirectory() as folder:
        reported = Path(folder, "digest")
        if engine.program == "podman":
            words = ["--digestfile", str(reported)]
        else:
            words = []
        done = subprocess.run(
            [engine.program, "push", *words, *flags, target],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise HaganeError(
                f"image {target}: the push failed: "
                f"{(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
            )
        found = re.search(
            r"sha256:[0-9a-f]{64}",
            reported.read_text() if words else done.stdout.rpartition("digest: ")[2],
        )
    if found is None:
        raise HaganeError(f"image {target}: pushed, but {engine.program} did not tell its digest")
    return found[0]


def write_digests(file: Path, registry: str, digests: dict[str, str]) -> None:
    """images.yaml names the registry and these digests, beside those of images made elsewhere; its
    other lines are as they were."""
    digests = made_elsewhere(read_images(file)) | digests
    text = re.sub(r"(?m)^repository: .*$", f"repository: {registry}", file.read_text(), count=1)
    lines = "".join(f"\n  {name}: {digest}" for name, digest in digests.items())
    beside = file.with_name(f".new-{file.name}")
    beside.write_text(re.sub(DIGESTS, f"digests:{lines}", text, count=1))
    read_images(beside)
    beside.rename(file)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m images.push", description=__doc__)
    parser.add_argument("registry", metavar="REGISTRY", help="such as registry.example.com/hagane")
    registry = parser.parse_args().registry.rstrip("/")
    try:
        images = read_images(IN_THE_REPOSITORY)
        images.model_validate(images.model_dump() | {"repository": registry})
        digests = push_all(find_engine(), images, registry)
        write_digests(IN_THE_REPOSITORY, registry, digests)
    except HaganeError as error:
        sys.exit("\n".join(f"error: {problem}" for problem in error.problems))
    for name, digest in digests.items():
        print(f"{registry}/{name}@{digest}")
    for name, digest in made_elsewhere(images).items():
        print(f"{registry}/{name}@{digest}: not pushed, not built here; push it there by hand")


if __name__ == "__main__":
    main()
