"""docker-bake.json -> what each image is built from, for engines that cannot read it themselves.

Of bake's language (docs.docker.com/build/bake/reference) it knows what the file uses: variables
with defaults, groups, `inherits`, and of a target context, dockerfile, target, tags, args.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BAKE_FILE = Path(__file__).with_name("docker-bake.json")


@dataclass(frozen=True)
class Target:
    name: str
    context: str
    dockerfile: str
    stage: str
    tags: tuple[str, ...]
    args: dict[str, str]

    def build_command(self, engine: str, flags: Iterable[str] = ()) -> list[str]:
        """What docker and podman both take for this target."""
        args = [
            word for key, value in self.args.items() for word in ("--build-arg", f"{key}={value}")
        ]
        tags = [word for tag in self.tags for word in ("--tag", tag)]
        return [
            engine,
            "build",
            "--file",
            self.dockerfile,
            "--target",
            self.stage,
            *args,
            *tags,
            *flags,
            self.context,
        ]


def built_here(*, file: Path = BAKE_FILE) -> frozenset[str]:
    """All images that the file builds."""
    return frozenset(target.name for target in read_bake({}, ["all"], file=file))


def read_bake(
    given: Mapping[str, str], names: Iterable[str] = ("default",), *, file: Path = BAKE_FILE
) -> list[Target]:
    """The targets of these names or groups, each once, in the file's order; `given` sets variables.

    Raises:
        KeyError: the file has no such name.
    """
    tree = json.loads(file.read_text())
    variables = {
        name: given.get(name, declared.get("default", ""))
        for name, declared in tree["variable"].items()
    }
    wanted = _expand(tree["group"], names)
    unknown = sorted(wanted - set(tree["target"]))
    if unknown:
        raise KeyError(", ".join(unknown))
    return [_target(name, tree["target"], variables) for name in tree["target"] if name in wanted]


def _expand(groups: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    return {
        found
        for name in names
        for found in (_expand(groups, groups[name]["targets"]) if name in groups else {name})
    }


def _target(name: str, declared: Mapping[str, Any], variables: Mapping[str, str]) -> Target:
    merged = _inherited(declared[name], declared)
    reported = json.loads(
        re.sub(
            r"\$\{(\w+)\}", lambda found: json.dumps(variables[found[1]])[1:-1], json.dumps(merged)
        )
    )
    return Target(
        name,
        reported["context"],
        reported["dockerfile"],
        reported["target"],
        tuple(reported["tags"]),
        reported["args"],
    )


def _inherited(target: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {"args": {}}
    for parent in target.get("inherits", ()):
        merged = _over(merged, _inherited(declared[parent], declared))
    return _over(merged, target)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    return {**below, **above, "args": {**below["args"], **above.get("args", {})}}
