"""Options of `hagane` itself, which may stand before or after the command; and the environment of
the demo's store. Imported for `--help`."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

FLAGS = ("-v", "--verbose", "-q", "--quiet")
WITH_VALUE = "--env-file"
QUIET, VERBOSE = "HAGANE_QUIET", "HAGANE_VERBOSE"
"""Variables by which the options reach what prints."""
DEMO_STORE = "s3://hagane/"
DEMO_ENV = Path(".hagane/store/env")
STORE_LINE = re.compile(r"^store:[ \t]*[\"']?(s3://[^\s\"'#]+)", re.MULTILINE)
S3_SETTINGS = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID"),
    *("AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
)


def globals_first(arguments: Sequence[str]) -> list[str]:
    """The command line with hagane's own options before the command; what follows `--` stays."""
    first: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            rest += [argument, *left]
            break
        if argument in FLAGS or argument.startswith(f"{WITH_VALUE}="):
            first.append(argument)
        elif argument == WITH_VALUE:
            first += [argument, *left[:1]]
            left = left[1:]
        else:
            rest.append(argument)
    return first + rest


def demo_environment(arguments: Sequence[str]) -> Path | None:
    """The file with the keys of the demo's store, where a spec or run on the command line is in
    that store and the environment says nothing about S3."""
    if any(name in os.environ for name in S3_SETTINGS):
        return None
    for argument in arguments:
        if argument.startswith(DEMO_STORE):
            return _above(Path.cwd())
        spec = Path(argument)
        if spec.suffix in (".yaml", ".yml") and _store_of(spec).startswith(DEMO_STORE):
            return _above(spec.absolute().parent) or _above(Path.cwd())
    return None


def use_demo_environment(arguments: Sequence[str]) -> None:
    """The keys are in the environment, and a line on stderr says so."""
    file = demo_environment(arguments)
    if file is None:
        return
    from dotenv import load_dotenv

    load_dotenv(file)
    if QUIET not in os.environ:
        print(f"store: keys of the demo's S3 server from {file}", file=sys.stderr)


def _store_of(spec: Path) -> str:
    try:
        found = STORE_LINE.search(spec.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if found:
        return found[1]
    return ""


def _above(folder: Path) -> Path | None:
    for each in (folder, *folder.parents):
        if (each / DEMO_ENV).is_file():
            return each / DEMO_ENV
    return None
