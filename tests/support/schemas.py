"""A Kubernetes object -> what those who receive it have against it: the API's own schema for built-in kinds, the field lists of
every version that the docs name (tests/data/fields) for jobs and their runtime.

Both refuse fields they do not know, as an API server does not: it drops them, and what was meant never happens.
"""

import json
from typing import Any

import kubernetes_validate

from tests.support.field_lists import PACKAGE_OF, VERSIONS, unknown_fields

OLDEST, NEWEST = "1.28", "1.37"
"""Kubernetes versions between which a field must be known."""


def schema_problems(manifest: dict[str, Any]) -> list[str]:
    """One line for each thing wrong in a job or its runtime, and for the first in a built-in object."""
    kind = manifest["kind"]
    if kind in PACKAGE_OF:
        problems = [line for version in VERSIONS[PACKAGE_OF[kind]] for line in unknown_fields(manifest, version)]
        problems += [line for each in _built_in_parts(manifest) for line in _built_in_problems(each)]
        return list(dict.fromkeys(problems))
    return _built_in_problems(manifest)


def _built_in_problems(manifest: dict[str, Any]) -> list[str]:
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}"]
        except kubernetes_validate.SchemaNotFoundError as error:
            return [error.message]
    return []


def _built_in_parts(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What a job or runtime holds of Kubernetes' own, as objects that can be checked."""
    spec = manifest["spec"]
    if manifest["kind"] == "PyTorchJob":
        return [_as_pod(replica["template"]) for replica in spec["pytorchReplicaSpecs"].values()]
    if manifest["kind"] == "TrainingRuntime":
        jobs = [json.loads(json.dumps(each["template"])) for each in spec["template"]["spec"]["replicatedJobs"]]
        for job in jobs:
            for rule in job["spec"].get("podFailurePolicy", {}).get("rules", []):
                rule.setdefault("onPodConditions", [])  # required by OLDEST's schema alone, never by its server
        return [{"apiVersion": "batch/v1", "kind": "Job", **each} for each in jobs]
    parts: list[dict[str, Any]] = []
    for patch in spec["runtimePatches"]:
        for each in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
            parts.append(_as_pod(each["template"]["spec"]["template"]))
    trainer = spec["trainer"]
    container = {key: trainer[key] for key in ("command", "args", "env", "image") if key in trainer}
    container |= {"name": "node", "resources": trainer["resourcesPerNode"]}
    return [*parts, _as_pod({"spec": {"containers": [container]}})]


def _as_pod(template: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", **template}
