"""Findings of doctor -> objects to apply, each valid for Kubernetes."""

from typing import Any

import pytest
import yaml

from components.launch_training.doctor.diagnosis import (
    account_finding,
    kfp_permissions_finding,
    permissions_finding,
    queue_finding,
)
from components.launch_training.doctor.runtime_policy import runtime_finding
from components.shared.documents.findings import Finding
from components.shared.job.permissions import KFP_POD_PERMISSIONS, launcher_permissions
from components.shared.spec.file import parse_spec
from pipelines.programs.missing_objects import NOTHING, Place, as_yaml, fixes_text, missing_objects
from tests.support.schemas import schema_problems

SPEC = parse_spec(
    {
        "name": "a",
        "store": "s3://bucket/runs",
        "backend": "trainjob",
        "model": {"source": "org/name"},
        "data": {"train": "s3://bucket/a.jsonl"},
        "cluster": {"queue": "team", "namespace": "ml"},
    }
)
PLACE = Place("ml", "pipelines", SPEC)
NO_KEYS = Finding(check="Secret hagane-s3", state="failed", found="is not in namespace ml")
NO_POD = Finding(
    check="worker pod",
    state="failed",
    found='no pod was made: error looking up service account: serviceaccount "hagane-worker" '
    "not found",
)


def of(finding: Finding) -> list[dict[str, Any]]:
    text = as_yaml(missing_objects([finding], PLACE))
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize(
    ("finding", "kinds"),
    [
        (account_finding("launcher's account", "pipelines", "ml", there=False), ["ServiceAccount"]),
        (
            permissions_finding("pipelines", list(launcher_permissions("trainjob")), 9),
            ["Role", "RoleBinding"],
        ),
        (
            kfp_permissions_finding("pipelines", list(KFP_POD_PERMISSIONS), 4),
            ["Role", "RoleBinding"],
        ),
        (NO_POD, ["ServiceAccount"]),
        (queue_finding("team", "ml", None, []), ["LocalQueue"]),
        (runtime_finding(SPEC, "TrainingRuntime", None), ["TrainingRuntime"]),
        (NO_KEYS, ["Secret"]),
        (NO_KEYS.model_copy(update={"check": "ConfigMap hagane"}), ["ConfigMap"]),
    ],
)
def test_what_is_missing_is_printed_for_the_runs_namespace(
    finding: Finding, kinds: list[str]
) -> None:
    objects = of(finding)
    assert [each["kind"] for each in objects] == kinds
    assert {each["metadata"]["namespace"] for each in objects} == {"ml"}
    built_in = [each for each in objects if each["kind"] != "LocalQueue"]  # Kueue's own schema
    assert [problem for each in built_in for problem in schema_problems(each)] == []


def test_roles_are_bound_to_the_account_that_runs_pipelines() -> None:
    _, binding = of(permissions_finding("x", list(launcher_permissions("trainjob")), 9))
    subject = {"kind": "ServiceAccount", "name": "pipelines", "namespace": "ml"}
    assert binding["subjects"] == [subject]


def test_the_queue_has_the_specs_name() -> None:
    assert of(queue_finding("team", "ml", None, []))[0]["metadata"]["name"] == "team"


def test_what_is_there_and_what_no_object_cures_print_nothing() -> None:
    there = account_finding("launcher's account", "pipelines", "ml", there=True)
    away = Finding(check="store", state="failed", found="cannot be reached")
    assert as_yaml(missing_objects([there, away], PLACE)) == NOTHING


def test_a_failure_that_no_object_fixes_is_a_comment() -> None:
    away = Finding(check="store", state="failed", found="cannot be reached")
    text = fixes_text([away, NO_KEYS], PLACE)
    assert text.startswith("# not fixed by an object: store: cannot be reached\n# Secret hagane-s3")
    assert [each["kind"] for each in yaml.safe_load_all(text)] == ["Secret"]
