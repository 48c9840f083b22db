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
from pipelines.programs.missing_objects import (
    NOTHING,
    Place,
    as_yaml,
    fixes_text,
    missing_objects,
    place_of,
)
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


NO_ACCOUNT = account_finding("launcher's account", "pipelines", "ml", there=False)
NO_RIGHTS = permissions_finding("pipelines", list(launcher_permissions("trainjob")), 9)


def of(finding: Finding, place: Place = PLACE) -> list[dict[str, Any]]:
    text = as_yaml(missing_objects([finding], place))
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize(
    ("finding", "kinds"),
    [
        (NO_ACCOUNT, ["ServiceAccount"]),
        (NO_RIGHTS, ["Role", "RoleBinding"]),
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
    _, binding = of(NO_RIGHTS)
    subject = {"kind": "ServiceAccount", "name": "pipelines", "namespace": "ml"}
    assert binding["subjects"] == [subject]


def test_each_account_has_a_binding_of_its_own_so_none_takes_the_place_of_another() -> None:
    names = [
        of(NO_RIGHTS, Place("ml", account, SPEC))[1]["metadata"]["name"]
        for account in ("hagane-launcher", "pipelines", "pipeline-runner")
    ]
    assert names[0] == "hagane-launcher"  # that of k8s/base
    assert names[1:] == ["hagane-launcher-pipelines", "hagane-launcher-pipeline-runner"]


@pytest.mark.parametrize("finding", [NO_ACCOUNT, NO_RIGHTS])
def test_for_whoever_asks_no_account_and_no_binding_is_made(finding: Finding) -> None:
    myself = Place("ml", None, SPEC)
    assert of(finding, myself) == []
    assert fixes_text([finding], myself).startswith("# not fixed by an object: ")


def test_the_place_is_where_doctor_looked_and_none_where_no_cluster_answered() -> None:
    there = Finding(check="cluster", state="ok", found="a", namespace="default", account="b")
    away = Finding(check="cluster", state="failed", found="no cluster")
    assert place_of([there, NO_KEYS], SPEC) == Place("default", "b", SPEC)
    assert place_of([away], SPEC) is None
    assert NOTHING in fixes_text([away], None)


@pytest.mark.parametrize("check", ["Secret hagane-s3", "ConfigMap hagane"])
def test_what_the_store_was_reached_without_is_not_printed(check: str) -> None:
    warning = NO_KEYS.model_copy(update={"check": check, "state": "warning"})
    assert of(warning) == []


def test_an_object_to_fill_in_says_so() -> None:
    lines = as_yaml(missing_objects([NO_KEYS], PLACE)).splitlines()
    assert lines[1] == "# Fill in REPLACE_ME before you apply this one."
    assert "Fill in" not in as_yaml(missing_objects([NO_RIGHTS], PLACE))


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
