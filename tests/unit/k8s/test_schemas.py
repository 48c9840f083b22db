"""All that hagane sends to a cluster, held against the schemas of those who receive it."""

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from components.shared.permissions import KFP_POD_PERMISSIONS, Permission, launcher_permissions
from tests.example_jobs import GOLDEN, JOBS, job_text
from tests.example_plans import ROOT
from tests.schemas import schema_problems

OVERLAYS = sorted(folder.parent.name for folder in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml"))


def rendered(overlay: str) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which renders k8s/ without a cluster")
    done = subprocess.run(["kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_to_objects_without_a_field_that_kubernetes_does_not_know(overlay: str) -> None:
    objects = rendered(overlay)
    problems = {f"{each['kind']} {each['metadata']['name']}": schema_problems(each) for each in objects}
    assert {name: found for name, found in problems.items() if found} == {}
    cluster_wide = {"Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding"}
    namespace = {"kfp-single-user": "kubeflow", "kfp-profile": "my-profile"}.get(overlay, "hagane")
    in_kfps_own = namespace != "hagane"
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] not in cluster_wide} == {namespace}
    kinds = {each["kind"] for each in objects}
    assert {"ServiceAccount", "Role", "RoleBinding", "ConfigMap", "NetworkPolicy"} <= kinds
    assert ("Namespace" in kinds) is not in_kfps_own


ACCOUNTS = {
    "kfp-single-user": ("hagane-launcher", "pipeline-runner"),
    "kfp-profile": ("hagane-launcher", "default-editor"),
}
"""Overlay -> accounts that pipelines run under there; of the others hagane-launcher alone."""
BY_KFP = {"pipeline-runner": set(KFP_POD_PERMISSIONS)}
"""What KFP's own Role grants its account, so that no overlay need to."""


def granted_to(account: str, objects: list[dict[str, Any]]) -> set[Permission]:
    """What the rendered Roles let the account do in the overlay's namespace."""
    roles = {each["metadata"]["name"]: each for each in objects if each["kind"] == "Role"}
    names = [
        each["roleRef"]["name"]
        for each in objects
        if each["kind"] == "RoleBinding"
        and any((of["name"], of.get("namespace")) == (account, each["metadata"]["namespace"]) for of in each["subjects"])
    ]
    return {
        Permission(verb, group, resource, only)
        for name in names
        for rule in roles[name]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for only in rule.get("resourceNames", [""])
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_grants_each_account_just_what_hagane_and_kfp_need(overlay: str) -> None:
    objects = rendered(overlay)
    jobs = set(launcher_permissions("pytorchjob"))
    if overlay == "trainjob":
        jobs |= set(launcher_permissions("trainjob"))
    for account in ACCOUNTS.get(overlay, ("hagane-launcher",)):
        assert granted_to(account, objects) == (jobs | set(KFP_POD_PERMISSIONS)) - BY_KFP.get(account, set())
    assert granted_to("hagane-worker", objects) == set()


def test_kubectl_1_21_can_read_all_that_it_is_to_apply() -> None:
    """Its YAML reader crashes on a comment with a letter beyond ASCII, and a patch file may hold one object. Tried with kubectl 1.21.0."""
    for file in [*(ROOT / "k8s/base").glob("*.yaml"), *(ROOT / "k8s/overlays").rglob("*.yaml")]:
        text = file.read_text(encoding="utf-8")
        assert text.isascii(), file
        kustomization = yaml.safe_load_all(text)
        for patch in [each for found in kustomization if found["kind"] == "Kustomization" for each in found.get("patches", [])]:
            assert len(list(yaml.safe_load_all((file.parent / patch["path"]).read_text()))) == 1, file


def test_the_schema_check_finds_a_field_that_nobody_knows() -> None:
    role = next(each for each in rendered("cpu-dev") if each["kind"] == "Role")
    role["rules"][0]["verb"] = role["rules"][0].pop("verbs")
    assert "verb" in schema_problems(role)[0]


def test_the_example_of_a_reaper_is_a_cron_job_that_kubernetes_knows() -> None:
    assert schema_problems(yaml.safe_load((ROOT / "k8s" / "examples" / "reap.yaml").read_text())) == []


@pytest.mark.parametrize("name", JOBS)
def test_a_golden_job_is_what_its_spec_makes_and_what_the_operators_schema_knows(name: str) -> None:
    text = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    assert job_text(name) == text
    assert schema_problems(yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    ("where", "wrong", "expected"),
    [
        ("runPolicy", {"cleanPodPolcy": "All"}, "spec.runPolicy: Additional properties are not allowed ('cleanPodPolcy' was unexpected)"),
        ("nprocPerNode", 2, "spec.nprocPerNode: 2 is not of type 'string'"),
    ],
)
def test_the_operators_schema_refuses_what_it_does_not_know(where: str, wrong: Any, expected: str) -> None:
    job = yaml.safe_load(job_text("cpu-two-nodes"))
    job["spec"][where] = wrong
    assert schema_problems(job) == [expected]


def test_a_pods_unknown_field_is_refused_deep_inside_a_job() -> None:
    job = yaml.safe_load(job_text("cpu-two-nodes"))
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["resource"] = {}
    (problem,) = schema_problems(job)
    assert problem.startswith("spec.pytorchReplicaSpecs.Worker.template.spec.containers.0: ")
