"""Run inside a container, by its own Python: prints as JSON what the image holds. Needs nothing but
the standard library."""

import importlib.metadata
import json
import os
import shutil
from pathlib import Path

PARTS = {"torch": "/opt/torch", "dependencies": "/opt/hagane", "code": "/app"}
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "as", "ld", "make", "cmake", "nvcc", "rustc", "go")
# where a build may leave caches, settings, sources
LEFT_OVER = ("/root", "/hagane", "/requirements", "/source", "/tmp")  # noqa: S108


def files_below(folder: str) -> list[str]:
    """Every file below the folder, links not followed."""
    return [f"{where}/{name}" for where, _, names in os.walk(folder) for name in names]


def num_bytes(folder: str) -> int:
    return sum(os.lstat(path).st_size for path in files_below(folder))


def main() -> None:
    code = [
        str(Path(path).relative_to("/app"))
        for path in files_below("/app")
        if path.endswith((".py", ".jinja", ".yaml"))
    ]
    print(
        json.dumps(
            {
                "num_bytes": {part: num_bytes(folder) for part, folder in PARTS.items()},
                "packages": sorted(
                    {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
                ),
                "code": sorted(code),
                "compilers": [name for name in COMPILERS if shutil.which(name)],
                "left_over": [path for folder in LEFT_OVER for path in files_below(folder)],
            }
        )
    )


if __name__ == "__main__":
    main()
