"""Options of `hagane` itself, which may stand before or after the command; and the environment of
the demo's store. Imported for `--help`."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from components.shared.errors import HaganeError

FLAGS = ("-v", "--verbose", "-q", "--quiet")
WITH_VALUE = "--env-file"
QUIET, VERBOSE = "HAGANE_QUIET", "HAGANE_VERBOSE"
"""Variables by which the options reach what prints."""
DEMO_STORE, DEMO_NAME = "s3://hagane/runs", "demo"
DEMO_SPEC, DEMO_ENV = Path("specs/demo.yaml"), Path(".hagane/store/env")
"""Of a checkout."""
STORE_LINE = re.compile(r"^store:[ \t]*[\"']?(s3://[^\s\"'#]+)", re.MULTILINE)
STORE_OPTION = re.compile(r"(--set=)?store=")
"""Of `--set store=…`."""
S3_SETTINGS = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID"),
    *("AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
)
OF_OTHER_KEYS = (
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
)
"""What boto3 would use beside the keys of a file: it belongs to the keys that they replace."""


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
    """The file with the keys of the demo's store, where the command line names the demo's own spec
    or run, no other store, and the environment says nothing about S3.

    A store of the same address does not count: a bucket `hagane` may be there in AWS too.
    """
    if any(name in os.environ for name in S3_SETTINGS):
        return None
    if any(STORE_OPTION.match(argument) for argument in arguments):
        return None
    for argument in arguments:
        if argument.rstrip("/") == f"{DEMO_STORE}/{DEMO_NAME}":
            return _above(Path.cwd())
        file = _env_of_spec(Path(argument).absolute())
        if file is not None:
            return file
    return None


def use_demo_environment(arguments: Sequence[str]) -> None:
    """The keys are in the environment, and a line on stderr says so."""
    file = demo_environment(arguments)
    if file is None:
        return
    use_env_file(file)
    if QUIET not in os.environ:
        print(f"store: keys of the demo's S3 server from {file}", file=sys.stderr)


def use_env_file(file: Path) -> None:
    """Its lines are in the environment, whatever was there. Keys replace the others altogether: no
    profile, session token or endpoint of theirs stays.

    Raises HaganeError where the file is not there or sets nothing.
    """
    from dotenv import dotenv_values

    lines = dotenv_values(file)
    values = {name: value for name, value in lines.items() if value is not None}
    if not values:
        raise HaganeError(f"--env-file: {file} is not there or sets nothing")
    if "AWS_ACCESS_KEY_ID" in values:
        for name in OF_OTHER_KEYS:
            os.environ.pop(name, None)
    os.environ.update(values)


def _env_of_spec(spec: Path) -> Path | None:
    """The keys beside a checkout's specs/demo.yaml, as long as it names the demo's store."""
    root = spec.parent.parent
    if spec != root / DEMO_SPEC or _store_of(spec).rstrip("/") != DEMO_STORE:
        return None
    if (root / DEMO_ENV).is_file():
        return root / DEMO_ENV
    return None


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
