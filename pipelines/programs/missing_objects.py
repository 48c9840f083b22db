"""`hagane doctor --print-fixes`: findings -> the missing objects of Kubernetes, as YAML for
`kubectl apply`. What a person must fill in is `REPLACE_ME`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from components.shared.documents.findings import Finding
from components.shared.errors import HaganeError
from components.shared.own_files import own_file
from components.shared.spec.run_spec import RunSpec

Fields = dict[str, Any]
TO_FILL_IN = "REPLACE_ME"
NOTHING = "# hagane doctor knows of no object that is missing\n"


@dataclass(frozen=True)
class Place:
    """For whom objects are made."""

    namespace: str
    launcher: str | None
    """The account that runs pipelines; None where doctor asked for its own rights."""
    spec: RunSpec | None


def place_of(findings: Iterable[Finding], spec: RunSpec | None) -> Place | None:
    """Where doctor looked, and whose rights it asked for; None where no cluster answered."""
    for finding in findings:
        if finding.namespace is not None:
            return Place(finding.namespace, finding.account, spec)
    return None


def missing_objects(
    findings: Iterable[Finding], place: Place | None
) -> list[tuple[Finding, Fields]]:
    """Each object with the finding that it answers; a failure that no object cures has none."""
    found: list[tuple[Finding, Fields]] = []
    if place is None:
        return found
    for finding in findings:
        if finding.state not in ("failed", "warning"):
            continue
        found += [(finding, each) for each in _objects_for(finding, place)]
    return found


def fixes_text(findings: Iterable[Finding], place: Place | None) -> str:
    """The objects as YAML; above them, as comments, each failure that no object fixes."""
    findings = list(findings)
    objects = missing_objects(findings, place)
    fixed = {finding.check for finding, _ in objects}
    left = [each for each in findings if each.state == "failed" and each.check not in fixed]
    comments = [f"# not fixed by an object: {' '.join(each.line.split())}\n" for each in left]
    return "".join(comments) + as_yaml(objects)


def as_yaml(objects: Iterable[tuple[Finding, Fields]]) -> str:
    """One document each, below a comment that says which check asked for it."""
    return "---\n".join(_document(*each) for each in objects) or NOTHING


def _document(finding: Finding, fields: Fields) -> str:
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    comment = f"# {finding.check}: {' '.join(finding.found.split())}\n"
    if TO_FILL_IN in text:
        comment += f"# Fill in {TO_FILL_IN} before you apply this one.\n"
    return comment + text


def _objects_for(finding: Finding, place: Place) -> list[Fields]:
    kind, _, name = finding.check.partition(" ")
    if kind in ("ConfigMap", "Secret") and name:
        # A warning: the store is reached without it, by keys that this one would hide.
        if finding.state == "failed":
            return [_environment(kind, name, place)]
        return []
    make = _BY_CHECK.get(finding.check)
    if make is None:
        return []
    return [_in(place, each) for each in make(finding, place)]


def _in(place: Place, fields: Fields) -> Fields:
    metadata = {**fields["metadata"], "namespace": place.namespace}
    return {**fields, "metadata": metadata}


def _shipped(path: str) -> list[Fields]:
    file = own_file(path)
    if not file.is_file():
        raise HaganeError(
            f"--print-fixes: {path} is not in this image. Fix: run it where hagane is installed"
        )
    return [each for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each]


def _account(name: str) -> Fields:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def _launchers_account(finding: Finding, place: Place) -> list[Fields]:
    if place.launcher is not None and "no ServiceAccount" in finding.found:
        return [_account(place.launcher)]
    return []


def _role(path: str) -> Callable[[Finding, Place], list[Fields]]:
    """The Role of a file of k8s/base, bound to the account that runs pipelines, by a binding of its
    own: that of another account stays."""

    def made(finding: Finding, place: Place) -> list[Fields]:
        if place.launcher is None:
            return []
        role, binding = _shipped(path)
        if place.launcher not in {each["name"] for each in binding["subjects"]}:
            name = f"{binding['metadata']['name']}-{place.launcher}"
            binding = {**binding, "metadata": {**binding["metadata"], "name": name}}
        subject = {
            "kind": "ServiceAccount",
            "name": place.launcher,
            "namespace": place.namespace,
        }
        return [role, {**binding, "subjects": [subject]}]

    return made


def _workers_account(finding: Finding, place: Place) -> list[Fields]:
    if place.spec is None or "not found" not in finding.found:
        return []
    name = place.spec.cluster.service_account
    if f'serviceaccount "{name}"' not in finding.found:
        return []
    return [{**_account(name), "automountServiceAccountToken": False}]


def _queue(finding: Finding, place: Place) -> list[Fields]:
    if place.spec is None or "no LocalQueue" not in finding.found:
        return []
    shipped = _shipped("k8s/examples/kueue.yaml")
    queue = next(each for each in shipped if each["kind"] == "LocalQueue")
    return [{**queue, "metadata": {"name": place.spec.cluster.queue}}]


def _runtime(finding: Finding, place: Place) -> list[Fields]:
    is_missing = finding.found.startswith("no TrainingRuntime ")
    if is_missing:
        return _shipped("k8s/overlays/trainjob/runtime.yaml")
    return []


_BY_CHECK: dict[str, Callable[[Finding, Place], list[Fields]]] = {
    "launcher's account": _launchers_account,
    "permissions": _role("k8s/base/launcher-role.yaml"),
    "permissions of KFP": _role("k8s/base/kfp-pod-role.yaml"),
    "worker pod": _workers_account,
    "Kueue queue": _queue,
    "runtime": _runtime,
}
"""Check of `hagane doctor` -> what to make where it fails."""


def _environment(kind: str, name: str, place: Place) -> Fields:
    """A ConfigMap or Secret with the variables that the workers read, to be filled in."""
    metadata = {"name": name, "namespace": place.namespace}
    if kind == "Secret":
        keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), TO_FILL_IN)
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "stringData": keys}
    values = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": TO_FILL_IN}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": values}
