"""Definitions in Git beside those in a cluster -> what differs, in words and as a diff of YAML.

The cluster is asked over KFP's REST API, whichever mode it is in, or by kubectl for the objects
themselves.
"""

import difflib
import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from components.shared.errors import ClusterError
from components.shared.tree import whole_numbers
from pipelines.definitions.files import API_VERSION, LABELS, Definition, from_manifest
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.versions import find_pipeline, list_versions

SHOWN_LINES = 60


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same on both sides."""

    kind: Literal["only in Git", "only in the cluster", "differs"]
    what: str
    """`version hagane-finetune-0123456789ab`."""
    lines: tuple[str, ...] = ()
    """A unified diff, from the cluster to Git."""

    @property
    def title(self) -> str:
        sign = {"only in Git": "+", "only in the cluster": "-", "differs": "~"}[self.kind]
        return "\n".join(
            [f"{sign} {self.what}: {self.kind}", *(f"    {line}" for line in self.lines)]
        )


def differences(wanted: Iterable[Definition], there: Iterable[Definition]) -> Iterator[Difference]:
    """Everything that is not the same: pipelines and versions in Git, and versions that the cluster
    has beside them.

    Content is compared as data: 5 and 5.0 are the same number, as they are for JSON.
    """
    found = list(there)
    by_name = {(each.kind, each.name): each for each in found}
    named = set()
    for each in wanted:
        named.add((each.kind, each.name))
        other = by_name.get((each.kind, each.name))
        if other is None:
            newest = [
                version
                for version in found
                if version.kind == each.kind and version.pipeline == each.pipeline
            ][-1:]
            if newest and each.kind == "PipelineVersion":
                lines = _unified(newest[0], each)
            else:
                lines = ()
            yield Difference("only in Git", _what(each), lines)
        elif _compared(other) != _compared(each):
            yield Difference("differs", _what(each), _unified(other, each))
    for other in found:
        if (other.kind, other.name) not in named and other.kind == "PipelineVersion":
            yield Difference("only in the cluster", _what(other))


def in_kfp(kfp: KfpClient, wanted: list[Definition]) -> list[Definition]:
    """What KFP has of the pipelines that Git names, oldest first: each of them, and its versions
    that are named as hagane names them."""
    found: list[Definition] = []
    for pipeline in (each for each in wanted if each.kind == "Pipeline"):
        kept = find_pipeline(kfp, pipeline.name)
        if kept is None:
            continue
        # Of a pipeline only its name is compared: the API has no way to change the rest that every
        # release keeps to.
        found.append(pipeline)
        listed = list_versions(kfp, kept)
        found += [
            _from_kfp(version, pipeline)
            for version in listed
            if is_ours(version.name, pipeline.name)
        ]
    return found


def is_ours(version: str, pipeline: str) -> bool:
    """Whether a version's name is one that hagane gives: the pipeline's, and 12 hex digits."""
    name, _, digest = version.rpartition("-")
    return name == pipeline and len(digest) == 12 and set(digest) <= set("0123456789abcdef")


def in_kubernetes(wanted: list[Definition], namespace: str | None) -> list[Definition]:
    """What the cluster of the kubeconfig in use has of the objects that hagane made, oldest first.

    Raises:
        ClusterError: kubectl is not here, or says no; one line.
    """
    namespaces = {namespace or each.namespace for each in wanted}
    found: list[Definition] = []
    labels = ",".join(f"{key}={value}" for key, value in LABELS.items())
    for each in sorted(namespaces, key=str):
        kinds = ",".join(
            f"{plural}.{API_VERSION.partition('/')[0]}"
            for plural in ("pipelines", "pipelineversions")
        )
        if each is None:
            where = []
        else:
            where = ["--namespace", each]
        listed = _kubectl(
            "get",
            kinds,
            *where,
            "--selector",
            labels,
            "--sort-by",
            "{.metadata.creationTimestamp}",
            "--output",
            "json",
        )
        found += [from_manifest(item) for item in json.loads(listed)["items"]]
    pipelines = {each.pipeline for each in wanted}
    return [each for each in found if each.pipeline in pipelines]


def _kubectl(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["kubectl", *arguments], capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError:
        raise ClusterError(
            "kubectl: is not on PATH; install it, or leave --kubernetes out to ask KFP itself"
        ) from None
    except subprocess.TimeoutExpired:
        raise ClusterError(
            "kubectl: the cluster did not answer within 60 s; check KUBECONFIG and the network"
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ClusterError(
            f"kubectl: {said.removeprefix('error: ')}; check KUBECONFIG, your rights, and that "
            "KFP's CRDs are installed"
        )
    return done.stdout


def _from_kfp(version: Any, pipeline: Definition) -> Definition:
    spec = version.pipeline_spec
    if "pipeline_spec" not in spec:
        documents = (spec,)
    else:
        documents = tuple(
            each for each in (spec["pipeline_spec"], spec.get("platform_spec")) if each
        )
    return Definition(
        "PipelineVersion",
        version.name,
        pipeline.namespace,
        pipeline.name,
        version.name,
        "",
        documents,
    )


def _compared(definition: Definition) -> tuple[Any, ...]:
    if definition.kind == "Pipeline":
        return definition.display_name, definition.description
    return definition.pipeline, definition.documents


def _what(definition: Definition) -> str:
    return f"{'pipeline' if definition.kind == 'Pipeline' else 'version'} {definition.name}"


def _unified(old: Definition, new: Definition) -> tuple[str, ...]:
    """A diff of the two contents as YAML, without the lines that are the same, cut short where it
    is long."""
    lines = list(difflib.unified_diff(_yaml(old), _yaml(new), old.name, new.name, n=2, lineterm=""))
    rest = len(lines) - SHOWN_LINES
    return tuple(lines if rest <= 0 else [*lines[:SHOWN_LINES], f"… and {rest} lines more"])


def _yaml(definition: Definition) -> list[str]:
    content: Any = whole_numbers(list(definition.documents))
    if definition.kind == "Pipeline":
        content = [{"displayName": definition.display_name, "description": definition.description}]
    return yaml.safe_dump_all(content, sort_keys=True, width=120, allow_unicode=True).splitlines()
