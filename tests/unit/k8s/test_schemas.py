"""All that hagane sends to a cluster, checked against the schemas of those who receive it."""

import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils import parse_quantity

from components.shared.job.permissions import (
    KFP_POD_PERMISSIONS,
    OF_QUEUES,
    Permission,
    launcher_permissions,
)
from components.shared.job.training_job import (
    OF_RUNTIME,
    OWN_RUNTIME,
    OWN_RUNTIME_GRACE_S,
    OWN_RUNTIME_RESTARTS,
    TRAINJOB_CONTAINER,
)
from tests.support.example_jobs import GOLDEN, JOBS, job_text
from tests.support.example_plans import ROOT
from tests.support.example_trainjob import example_trainjob
from tests.support.field_lists import PACKAGE_OF, VERSIONS, unknown_fields
from tests.support.schemas import schema_problems

OVERLAYS = sorted(
    folder.parent.name for folder in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml")
)


def rendered(overlay: str) -> list[dict[str, Any]]:
    return rendered_folder(ROOT / "k8s" / "overlays" / overlay)


def rendered_folder(folder: Path) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which renders k8s/ without a cluster")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_to_objects_without_a_field_that_kubernetes_does_not_know(
    overlay: str,
) -> None:
    objects = rendered(overlay)
    problems = {
        f"{each['kind']} {each['metadata']['name']}": schema_problems(each) for each in objects
    }
    assert {name: found for name, found in problems.items() if found} == {}
    cluster_wide = {"Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding"}
    namespace = {"kfp-single-user": "kubeflow", "kfp-profile": "my-profile"}.get(overlay, "hagane")
    in_kfps_own = namespace != "hagane"
    assert {
        each["metadata"].get("namespace") for each in objects if each["kind"] not in cluster_wide
    } == {namespace}
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
        and any(
            (of["name"], of.get("namespace")) == (account, each["metadata"]["namespace"])
            for of in each["subjects"]
        )
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
    jobs = {*launcher_permissions("pytorchjob"), *launcher_permissions("trainjob"), *OF_QUEUES}
    for account in ACCOUNTS.get(overlay, ("hagane-launcher",)):
        assert granted_to(account, objects) == (jobs | set(KFP_POD_PERMISSIONS)) - BY_KFP.get(
            account, set()
        )
    assert granted_to("hagane-worker", objects) == set()


def test_kubectl_1_21_can_read_all_that_it_is_to_apply() -> None:
    """Its YAML reader crashes on a comment with a letter beyond ASCII, and a patch file may hold
    one object. Tried with kubectl 1.21.0."""
    for file in [*(ROOT / "k8s/base").glob("*.yaml"), *(ROOT / "k8s/overlays").rglob("*.yaml")]:
        text = file.read_text(encoding="utf-8")
        assert text.isascii(), file
        kustomization = yaml.safe_load_all(text)
        for patch in [
            each
            for found in kustomization
            if isinstance(found, dict) and found["kind"] == "Kustomization"
            for each in found.get("patches", [])
        ]:
            assert len(list(yaml.safe_load_all((file.parent / patch["path"]).read_text()))) == 1, (
                file
            )


def test_the_schema_check_finds_a_field_that_nobody_knows() -> None:
    role = next(each for each in rendered("cpu-dev") if each["kind"] == "Role")
    role["rules"][0]["verb"] = role["rules"][0].pop("verbs")
    assert "verb" in schema_problems(role)[0]


def test_the_example_of_a_reaper_is_a_cron_job_that_kubernetes_knows() -> None:
    assert (
        schema_problems(yaml.safe_load((ROOT / "k8s" / "examples" / "reap.yaml").read_text())) == []
    )


@pytest.mark.parametrize("name", JOBS)
def test_a_golden_job_is_what_its_spec_makes_without_a_field_that_an_operator_does_not_know(
    name: str,
) -> None:
    text = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    assert job_text(name) == text
    assert schema_problems(yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    ("where", "wrong", "expected"),
    [
        ("runPolicy", {"cleanPodPolcy": "All"}, "spec.runPolicy.cleanPodPolcy: no such field"),
        ("nprocPerNode", 2, "spec.nprocPerNode: 2 is not of type string"),
    ],
)
def test_the_operators_schema_refuses_what_it_does_not_know(
    where: str, wrong: Any, expected: str
) -> None:
    job = yaml.safe_load(job_text("cpu-two-nodes"))
    job["spec"][where] = wrong
    assert schema_problems(job) == [expected]


def test_a_pods_unknown_field_is_refused_deep_inside_a_job() -> None:
    job = yaml.safe_load(job_text("cpu-two-nodes"))
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0][
        "resource"
    ] = {}
    (problem,) = schema_problems(job)
    assert problem.startswith("spec.containers.0: ")
    assert "'resource' was unexpected" in problem


def test_the_examples_manifests_fit_every_version_and_the_queue_of_the_example() -> None:
    """Prints a table: unknown fields of each version, and resources beside the queue's quota.

    Kueue admits no pod that asks for a resource outside coveredResources, and no job larger than
    the quota.
    """
    problems: list[str] = []
    print()
    for name in JOBS:
        jobs = {"pytorchjob": yaml.safe_load(job_text(name)), "trainjob": example_trainjob(name)}
        asked = totals(pods_of_trainjob(jobs["trainjob"]))
        assert asked == totals(pods_of_pytorchjob(jobs["pytorchjob"]))
        in_queue = [
            beside_quota(name, resource, amount) for resource, amount in sorted(asked.items())
        ]
        problems += [f"{name}: {text}" for text in in_queue if text.endswith(TOO_MUCH)]
        for backend, job in jobs.items():
            unknown = {
                version: unknown_fields(job, version)
                for version in VERSIONS[PACKAGE_OF[job["kind"]]]
            }
            problems += [line for lines in unknown.values() for line in lines]
            versions = ", ".join(f"{version} {len(lines)}" for version, lines in unknown.items())
            print(
                f"{name:24} {backend:10} {num_fields(job):3} fields, unknown to {versions:29} | "
                f"{'; '.join(in_queue)}"
            )
    assert problems == []


TOO_MUCH = "TOO MUCH"


def beside_quota(job: str, resource: str, amount: Decimal) -> str:
    """What the job asks for, and what the queue has."""
    if JOBS[job][1].get("cluster.gpu_resource") == resource:
        return f"{resource} {amount:f}, to be covered by the admin"  # as the example's head says
    quota = queue_quota().get(resource, Decimal(-1))
    is_bytes = quota >= 2**30
    shown = (
        f"{amount / 2**30:.1f}/{quota / 2**30:.0f} GiB" if is_bytes else f"{amount:.0f}/{quota:f}"
    )
    return f"{resource} {shown}{'' if amount <= quota else f' {TOO_MUCH}'}"


def num_fields(value: Any) -> int:
    """Keys of all mappings inside."""
    if isinstance(value, dict):
        return len(value) + sum(num_fields(each) for each in value.values())
    return sum(num_fields(each) for each in value) if isinstance(value, list) else 0


def test_a_queue_without_the_nodes_disk_would_admit_no_example_job() -> None:
    quota = queue_quota()
    del quota["ephemeral-storage"]
    assert all(
        totals(pods_of_pytorchjob(yaml.safe_load(job_text(name)))).keys() - quota.keys()
        for name in JOBS
    )


def queue_quota() -> dict[str, Decimal]:
    queues = yaml.safe_load_all((ROOT / "k8s" / "examples" / "kueue.yaml").read_text())
    objects = {each["kind"]: each for each in queues}
    assert {each["apiVersion"] for each in objects.values()} == {"kueue.x-k8s.io/v1beta2"}
    (group,) = objects["ClusterQueue"]["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]
    assert flavor["name"] == objects["ResourceFlavor"]["metadata"]["name"]
    return {each["name"]: parse_quantity(each["nominalQuota"]) for each in flavor["resources"]}


def pods_of_pytorchjob(job: dict[str, Any]) -> list[tuple[int, list[dict[str, Any]]]]:
    """Number of pods of each kind, and the resources of their containers."""
    replicas = job["spec"]["pytorchReplicaSpecs"].values()
    return [
        (
            each["replicas"],
            [container["resources"] for container in each["template"]["spec"]["containers"]],
        )
        for each in replicas
    ]


def pods_of_trainjob(job: dict[str, Any]) -> list[tuple[int, list[dict[str, Any]]]]:
    trainer = job["spec"]["trainer"]
    return [(trainer["numNodes"], [trainer["resourcesPerNode"]])]


def totals(pods: list[tuple[int, list[dict[str, Any]]]]) -> dict[str, Decimal]:
    """As Kueue counts: what is only limited is requested too."""
    found: dict[str, Decimal] = {}
    for num_pods, containers in pods:
        for resources in containers:
            for name, amount in {**resources["limits"], **resources["requests"]}.items():
                found[name] = found.get(name, Decimal(0)) + num_pods * parse_quantity(amount)
    return found


def test_the_runtime_of_the_overlay_keeps_what_the_plan_counts_on() -> None:
    (runtime,) = [each for each in rendered("trainjob") if each["kind"] == "TrainingRuntime"]
    assert (runtime["metadata"]["name"], runtime["metadata"]["namespace"]) == (
        OWN_RUNTIME,
        "hagane",
    )
    jobset = runtime["spec"]["template"]["spec"]
    assert jobset["failurePolicy"]["maxRestarts"] == OWN_RUNTIME_RESTARTS
    (rule,) = jobset["failurePolicy"]["rules"]
    assert re.fullmatch(
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"]
    )  # JobSet's own pattern
    (replicated,) = jobset["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (replicated["name"], job["backoffLimit"]) == (TRAINJOB_CONTAINER, 0)
    exit_codes = job["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert (exit_codes["operator"], exit_codes["values"]) == ("In", list(range(1, 128)))
    pod = job["template"]["spec"]
    assert {name for name in OF_RUNTIME if name in pod} == set(OF_RUNTIME)
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == (
        "Never",
        OWN_RUNTIME_GRACE_S,
    )
    assert (
        [each["name"] for each in pod["containers"]]
        == [exit_codes["containerName"]]
        == [TRAINJOB_CONTAINER]
    )


SITE = ROOT / "k8s" / "overlays" / "site"


def test_a_site_says_namespace_store_keys_registry_and_queue_in_one_folder(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    mine = tmp_path / "k8s" / "overlays" / "mine"
    shutil.copytree(SITE, mine)
    file = mine / "kustomization.yaml"
    text = file.read_text().replace("namespace: hagane", "namespace: ml")
    text = text.replace("# components:\n#   -", "components:\n  -").replace(
        "  - ../../base\n", "  - ../trainjob\n"
    )
    file.write_text(text)
    (mine / "values.env").write_text("AWS_ENDPOINT_URL_S3=https://store.lab\n")
    keys = (mine / "secrets.env").read_text()
    (mine / "secrets.env").write_text(keys.replace("# HF_TOKEN=REPLACE_ME", "HF_TOKEN=hf_a"))
    objects = rendered_folder(mine)
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    settings = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": "https://store.lab"}
    assert found["ConfigMap", "hagane"]["data"] == settings
    assert set(found["Secret", "hagane-s3"]["data"]) == {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"),
    }
    for account in ("hagane-launcher", "hagane-worker"):
        pulls = found["ServiceAccount", account]["imagePullSecrets"]
        assert pulls == [{"name": "hagane-registry"}]
    assert ("LocalQueue", "hagane") in found
    assert ("TrainingRuntime", "hagane") in found
    namespaces = {each["metadata"].get("namespace") for each in objects}
    assert namespaces <= {"ml", None}
    assert found["Namespace", "ml"]["metadata"]["name"] == "ml"


def test_a_site_without_a_bucket_gets_a_store_whose_keys_are_those_of_its_jobs(
    tmp_path: Path,
) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    mine = tmp_path / "k8s" / "overlays" / "mine"
    shutil.copytree(SITE, mine)
    file = mine / "kustomization.yaml"
    component = "  - ../../components/trial-store\n"
    text = file.read_text().replace("# components:\n", "components:\n")
    file.write_text(text.replace(f"# {component}", component))
    objects = rendered_folder(mine)
    assert [problem for each in objects for problem in schema_problems(each)] == []
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    pod = found["Deployment", "trial-store"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    secret = found["Secret", "hagane-s3"]
    keys = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in container["env"]
        if "valueFrom" in each
    }
    assert keys == {name: {"name": "hagane-s3", "key": name} for name in secret["data"]}
    (port,) = found["Service", "trial-store"]["spec"]["ports"]
    (opened,) = found["NetworkPolicy", "trial-store"]["spec"]["ingress"]
    assert [port["targetPort"]] == [each["port"] for each in opened["ports"]]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"]


def test_a_file_of_keys_asks_for_no_more_than_every_store_needs() -> None:
    """A line that is left as it is goes to the pods: as a token, to the hub."""
    objects = rendered("site")
    (secret,) = [each for each in objects if each["kind"] == "Secret"]
    assert set(secret["data"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert "# HF_TOKEN=" in (ROOT / "k8s/overlays/site/secrets.env").read_text()
