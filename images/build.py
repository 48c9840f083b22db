"""Builds the images of docker-bake.json with docker or podman: `python -m images.build [NAME …]`.

`$HAGANE_BUILD_FLAGS` goes to `docker build` as it is: `--build-arg BASE=…` for a base image of one's own, `--secret id=pip,src=…`
for a package index that asks for a password.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time

from components.shared.errors import HaganeError
from components.shared.job.images import IN_THE_REPOSITORY, read_images
from images.bake import Target, read_bake
from pipelines.local.engine import Engine, find_engine


def build(engine: Engine, target: Target) -> float:
    """The image is there under its tag. Returns the seconds it took. Raises HaganeError when the build fails."""
    command = target.build_command(engine.program, shlex.split(os.environ.get("HAGANE_BUILD_FLAGS", "")))
    start_s = time.monotonic()
    if subprocess.run(command, check=False).returncode:
        raise HaganeError(f"image {target.name}: the build failed, as told above; the command was: {shlex.join(command)}")
    return time.monotonic() - start_s


def bake_variables() -> dict[str, str]:
    """Names from images.yaml, the commit from git, anything else from the environment."""
    images = read_images(IN_THE_REPOSITORY)
    return {**os.environ, "REPOSITORY": images.repository, "VERSION": images.tag, "REVISION": revision()}


def revision() -> str:
    """The commit that is built, with `-dirty` behind it where files differ from it."""
    words = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m images.build", description=__doc__)
    parser.add_argument("names", nargs="*", default=["default"], metavar="NAME", help="images or groups of docker-bake.json")
    arguments = parser.parse_args()
    try:
        engine = find_engine()
        for target in read_bake(bake_variables(), arguments.names):
            print(f"{target.tags[0]}: built in {build(engine, target):.0f} s", flush=True)
    except KeyError as error:
        sys.exit(f"error: {error.args[0]}: no image or group of images/docker-bake.json")
    except HaganeError as error:
        sys.exit("\n".join(f"error: {problem}" for problem in error.problems))


if __name__ == "__main__":
    main()
