"""Which code runs here."""

import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from components.shared.documents.fields import FrozenModel

REVISION_VARIABLE = "HAGANE_REVISION"
"""Set in an image: the commit that it was built from."""
_ROOT = Path(__file__).parents[2]


class CodeVersion(FrozenModel):
    version: str | None
    """Of the package hagane, where it is installed as one."""
    commit: str | None
    """With `-dirty` behind it where files differ from it; None where the code is neither in an image nor in a checkout."""
    in_image: bool


def code_version() -> CodeVersion:
    built_from = os.environ.get(REVISION_VARIABLE)
    return CodeVersion(version=_package_version(), commit=built_from or _commit_of_checkout(), in_image=bool(built_from))


def _package_version() -> str | None:
    try:
        return version("hagane")
    except PackageNotFoundError:
        return None


def _commit_of_checkout() -> str | None:
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
