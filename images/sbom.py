"""What is in the built images, as CycloneDX JSON in build/sbom: `python -m images.sbom`. Debian's packages and Python's, by syft."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from components.shared.errors import HaganeError
from images.bake import read_bake
from images.build import bake_variables
from pipelines.local.engine import docker_api, find_engine

FOLDER = Path("build/sbom")


def write_sbom(image: str, target: Path, *, docker_host: str) -> None:
    """The image's bill of materials is at `target`, whole. Raises CalledProcessError."""
    syft = Path(sysconfig.get_path("scripts")) / "syft"
    beside = target.with_name(f".new-{target.name}")
    subprocess.run(
        [syft, "scan", f"docker:{image}", "--quiet", "--output", f"cyclonedx-json={beside}"],
        env={**os.environ, "DOCKER_HOST": docker_host, "SYFT_CHECK_FOR_APP_UPDATE": "false"},
        check=True,
    )
    beside.rename(target)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        engine = find_engine()
        with docker_api(engine) as docker_host:
            for target in read_bake(bake_variables(), ["all"]):
                if engine.has_image(target.tags[0]):
                    file = FOLDER / f"{target.name}.cdx.json"
                    write_sbom(target.tags[0], file, docker_host=docker_host)
                    print(file)
    except HaganeError as error:
        sys.exit("\n".join(f"error: {problem}" for problem in error.problems))


if __name__ == "__main__":
    main()
