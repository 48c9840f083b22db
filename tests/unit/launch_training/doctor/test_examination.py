"""Facts about a cluster -> what `hagane doctor` says of them; no cluster is needed for that."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from components.launch_training.doctor.diagnosis import (
    excess_finding,
    image_finding,
    kfp_permissions_finding,
    kind_finding,
    permissions_finding,
    pod_finding,
    queue_finding,
    retries_finding,
    source_findings,
    store_findings,
)
from components.launch_training.doctor.examination import Examination, attempted
from components.launch_training.doctor.probe_job import (
    Probed,
    Sources,
    ended_early,
    heard,
    probe_job,
    probe_pod,
    queued_probe,
    still_waiting,
)
from components.launch_training.doctor.queue_checks import (
    default_queue_finding,
    effect_finding,
    quota_finding,
)
from components.launch_training.doctor.runtime_policy import runtime_finding
from components.launch_training.job.kinds import PYTORCHJOB, TRAINJOB, JobKind
from components.launch_training.job.node_capacity import GIB, NodeFacts, node_finding
from components.launch_training.job.permissions import beyond, in_words, needed, shipped, shortened
from components.launch_training.job.worker_pod import worker_template
from components.launch_training.job.workload import Queueing
from components.launch_training.kubernetes_api.facts import quantities
from components.shared.job.permissions import KFP_POD_PERMISSIONS, OF_QUEUES, Permission
from components.shared.spec.file import spec_from_parameter
from tests.support.example_jobs import JOBS, job_text
from tests.support.example_plans import ROOT
from tests.support.example_trainjob import example_trainjob
from tests.support.schemas import schema_problems

SOURCES = Sources(config_maps=("hagane",), secrets=("hagane-s3",))
SETTINGS, KEYS = SOURCES.by_prefix()


def granted(*files: str) -> set[Permission]:
    """What the Roles in files of k8s/ grant."""
    objects = [
        each for file in files for each in yaml.safe_load_all((ROOT / "k8s" / file).read_text())
    ]
    return {
        Permission(verb, group, resource, name)
        for role in objects
        for rule in role.get("rules", [])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def test_the_roles_grant_just_what_a_launcher_needs() -> None:
    wanted = {*needed(PYTORCHJOB), *needed(TRAINJOB), *OF_QUEUES}
    assert granted("base/launcher-role.yaml") == wanted == set(shipped())
    assert granted("base/kfp-pod-role.yaml") == set(KFP_POD_PERMISSIONS)


def test_rules_beyond_what_is_needed_are_reported_and_those_of_everyone_are_not() -> None:
    rules = [
        {
            "verbs": ["create"],
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews"],
        },
        {"verbs": ["get", "list"], "apiGroups": ["kubeflow.org"], "resources": ["pytorchjobs"]},
        {
            "verbs": ["get"],
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["hagane-s3"],
        },
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    ]
    assert beyond(rules, needed(PYTORCHJOB)) == ["* *.*", "get secrets hagane-s3"]
    assert (
        excess_finding("a", ["get secrets"], ["create pods in namespace default"]).state
        == "warning"
    )
    assert excess_finding("a", [], []).state == "ok"


def test_what_kfps_parts_need_and_its_public_config_map_are_not_beyond() -> None:
    kfp = [
        {"verbs": [each.verb], "apiGroups": [each.group], "resources": [each.resource]}
        for each in KFP_POD_PERMISSIONS
    ]
    for rule, each in zip(kfp, KFP_POD_PERMISSIONS, strict=True):
        rule["resourceNames"] = [each.name] if each.name else []
    public = {
        "verbs": ["get"],
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["kubeflow-pipelines-public"],
    }
    assert beyond([*kfp, public], KFP_POD_PERMISSIONS) == []
    assert beyond(kfp, needed(PYTORCHJOB)) != []


def test_kfps_own_account_is_not_judged_by_what_more_it_may() -> None:
    for account in ("pipeline-runner", "default-editor"):
        assert (
            excess_finding(account, ["* pods"], ["get secrets in namespace default"]).state == "ok"
        )


def test_what_an_admin_may_is_no_warning_where_the_jobs_start_with_the_admins_own_rights() -> None:
    cluster: Any = SimpleNamespace(namespace="ml", kind=PYTORCHJOB)
    log: Any = None
    own = Examination(cluster, None, None, image="", launcher="self", seconds=1, log=log)
    (finding,) = attempted("no more than that", own.excess)
    assert (finding.state, finding.found) == (
        "skipped",
        "your own rights are not judged; an account's: --launcher ACCOUNT",
    )


def test_a_missing_right_of_either_list_is_named_with_the_file_that_grants_it() -> None:
    events = permissions_finding(
        "pipeline-runner", [Permission("list", "", "events"), Permission("watch", "", "events")], 11
    )
    assert events.found == "pipeline-runner may not list, watch events"
    assert events.fix.startswith(
        "k8s/base/launcher-role.yaml grants it: kubectl apply -k k8s/overlays/kfp-single-user"
    )
    results = kfp_permissions_finding("hagane-launcher", list(KFP_POD_PERMISSIONS[1:]), 4)
    assert results.found == (
        "hagane-launcher may not get secrets mlpipeline-minio-artifact; create, patch "
        "workflowtaskresults.argoproj.io"
    )
    assert results.fix.startswith("k8s/base/kfp-pod-role.yaml grants it")
    assert kfp_permissions_finding("a", [], 4).state == "ok"


@pytest.mark.parametrize(
    ("defaults", "state", "said"),
    [
        (None, "skipped", "no workflow-controller-configmap"),
        ({}, "warning", "a pod whose node is lost is not"),
        (
            {"retryStrategy": {"limit": "2", "retryPolicy": "OnError"}},
            "ok",
            "a step that failed is not, whatever its retries say",
        ),
        (
            {"retryStrategy": {"limit": "2", "retryPolicy": "Always"}},
            "ok",
            "a step that failed and a pod that is lost",
        ),
        ({"retryStrategy": {"limit": "2"}}, "warning", "OnFailure"),
    ],
)
def test_what_the_sites_retry_policy_does_to_a_run_is_said(
    defaults: Any, state: str, said: str
) -> None:
    finding = retries_finding(defaults)
    assert finding.state == state
    assert said in finding.found


def test_permissions_are_reported_by_resource_and_long_lists_are_cut() -> None:
    assert (
        in_words(
            [
                Permission("get", "", "pods/log"),
                Permission("list", "", "pods"),
                Permission("watch", "", "pods"),
            ]
        )
        == "get pods/log; list, watch pods"
    )
    assert shortened(list("abcd"), most=2) == "a, b and 2 more"


def test_an_operator_of_another_version_is_reported() -> None:
    finding = kind_finding(
        "PyTorchJob", "kubeflow.org/v1", there=False, versions=["v1beta2"], install="install it"
    )
    assert finding.line == (
        "PyTorchJob: this cluster has no PyTorchJob kubeflow.org/v1; the cluster has kubeflow.org "
        "as v1beta2 only; install it"
    )


def node(name: str, *, gpus: int = 0, gib: int = 64, **more: Any) -> NodeFacts:
    has = {"cpu": Decimal(8), "memory": Decimal(gib * GIB), "nvidia.com/gpu": Decimal(gpus)}
    return NodeFacts(
        name,
        has,
        more.get("labels", {}),
        tuple(more.get("taints", ())),
        more.get("cordoned", False),
    )


NEEDS = {"memory": Decimal(32 * GIB), "nvidia.com/gpu": Decimal(4)}
SPOT = {"key": "spot", "value": "true", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("nodes", "pod", "found", "fix"),
    [
        ([node("a")], {}, "1 without nvidia.com/gpu", "add GPU nodes"),
        ([node("a", gpus=2)], {}, "1 with 2 nvidia.com/gpu only", "take larger or more nodes"),
        (
            [node("a", gpus=8, gib=16)],
            {},
            "1 with 16.0 GiB memory only",
            "take larger or more nodes",
        ),
        ([node("a", gpus=4)], {}, "have room for 1", "take larger or more nodes"),
        (
            [node("a", gpus=8, taints=[SPOT])],
            {},
            "1 with taint spot=true:NoSchedule",
            "cluster.tolerations",
        ),
        (
            [node("a", gpus=8)],
            {"nodeSelector": {"pool": "x"}},
            "1 without label pool=x",
            "cluster.node_selector",
        ),
        ([node("a", gpus=8, cordoned=True)], {}, "1 cordoned", "kubectl uncordon"),
        ([], {}, "the cluster's nodes (0) have room for 0", "take larger or more nodes"),
    ],
)
def test_what_keeps_pods_off_every_node_is_reported_with_its_fix(
    nodes: list[NodeFacts], pod: dict[str, Any], found: str, fix: str
) -> None:
    finding = node_finding(nodes, NEEDS, 2, pod)
    assert finding.state == "failed"
    assert found in finding.found
    assert fix in finding.fix


@pytest.mark.parametrize(
    "toleration",
    [
        {"operator": "Exists"},
        {"key": "spot", "value": "true"},
        {"key": "spot", "operator": "Exists", "effect": "NoSchedule"},
    ],
)
def test_pods_may_share_a_node_that_has_room_for_both_and_bear_its_taint(
    toleration: dict[str, str],
) -> None:
    assert (
        node_finding(
            [node("a", gpus=8, taints=[SPOT])], NEEDS, 2, {"tolerations": [toleration]}
        ).state
        == "ok"
    )


PROBE: dict[str, Any] = {"image": "i", "sources": SOURCES, "store": "s3://b/r", "seconds": 60}


def job_of(name: str, kind: JobKind) -> dict[str, Any]:
    return example_trainjob(name) if kind is TRAINJOB else yaml.safe_load(job_text(name))


def probe_of(name: str, kind: JobKind = PYTORCHJOB) -> dict[str, Any]:
    return probe_job(job_of(name, kind), kind, "hagane-doctor-0", **PROBE)


def pod_probe_of(name: str, kind: JobKind = PYTORCHJOB) -> dict[str, Any]:
    return probe_pod(job_of(name, kind), kind, "hagane-doctor-0", **PROBE)


@pytest.mark.parametrize("kind", [PYTORCHJOB, TRAINJOB], ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", JOBS)
def test_the_probe_is_a_job_and_a_pod_that_schemas_know_small_and_in_no_queue(
    name: str, kind: JobKind
) -> None:
    job, pod = probe_of(name, kind), pod_probe_of(name, kind)
    assert job["kind"] == kind.name
    assert schema_problems(job) == []
    assert schema_problems(pod) == []
    assert not [label for label in job["metadata"]["labels"] if "kueue" in label]
    assert not kind.is_suspended(job)
    assert kind.num_pods(job) == 1
    for each in (pod["spec"], worker_template(job, kind)["spec"]):
        (container,) = each["containers"]
        assert container["resources"]["limits"]["memory"] == "384Mi"
        assert not [resource for resource in container["resources"]["limits"] if "/" in resource]
        assert container["command"][-1] == "components.train.store_check"
    assert (
        dict(each.split("=") for each in kind.pods("hagane-doctor-0").split(",")).items()
        <= pod["metadata"]["labels"].items()
    )


@pytest.mark.parametrize("kind", [PYTORCHJOB, TRAINJOB], ids=lambda kind: kind.name)
def test_the_probe_of_a_queue_is_suspended_in_it(kind: JobKind) -> None:
    job = queued_probe(probe_of("spot-in-a-queue", kind), kind, "spot")
    assert schema_problems(job) == []
    assert kind.is_suspended(job)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "spot"


def test_the_probe_has_the_workers_account_environment_volumes_and_security() -> None:
    worker = yaml.safe_load(job_text("patched-with-claims"))["spec"]["pytorchReplicaSpecs"][
        "Master"
    ]["template"]["spec"]
    probe = pod_probe_of("patched-with-claims")["spec"]
    for key in (
        "serviceAccountName",
        "volumes",
        "securityContext",
        "automountServiceAccountToken",
        "schedulerName",
    ):
        assert probe[key] == worker[key], key
    ours, theirs = probe["containers"][0], worker["containers"][0]
    for key in ("env", "volumeMounts", "securityContext"):
        assert ours[key] == theirs[key], key
    assert ours["envFrom"][: len(theirs["envFrom"])] == theirs["envFrom"]
    trainjob = example_trainjob("patched-with-claims")
    theirs, ours = (
        worker_template(each, TRAINJOB)["spec"]
        for each in (trainjob, probe_of("patched-with-claims", TRAINJOB))
    )
    for key in ("serviceAccountName", "volumes", "securityContext"):
        assert ours[key] == theirs[key], key


def runtime_of(**changes: Any) -> dict[str, Any]:
    """The overlay's runtime, with these fields of its JobSet, Job and pod."""
    runtime = yaml.safe_load((ROOT / "k8s" / "overlays" / "trainjob" / "runtime.yaml").read_text())
    jobset = runtime["spec"]["template"]["spec"]
    job = jobset["replicatedJobs"][0]["template"]["spec"]
    places = {"jobset": jobset, "job": job, "pod": job["template"]["spec"]}
    for name, value in changes.items():
        where, _, field = name.partition("_")
        if value is None:
            del places[where][field]
        else:
            places[where][field] = value
    return runtime


STOCK = {
    "jobset_failurePolicy": None,
    "job_backoffLimit": None,
    "job_podFailurePolicy": None,
    "pod_restartPolicy": "OnFailure",
    "pod_terminationGracePeriodSeconds": None,
    "pod_automountServiceAccountToken": None,
}


@pytest.mark.parametrize(
    ("runtime", "cluster", "state", "found"),
    [
        (
            runtime_of(),
            {},
            "ok",
            ["TrainingRuntime hagane keeps max_restarts 10 and grace_seconds 30"],
        ),
        (
            runtime_of(),
            {"max_restarts": 200},
            "warning",
            ["maxRestarts 100 is below cluster.max_restarts 200"],
        ),
        (
            runtime_of(**STOCK),
            {"runtime": "torch-distributed"},
            "warning",
            [
                "backoffLimit 6, counted over all pods, ends the job",
                "pods have 30 s to end, checkpoints.grace_seconds needs 35",
                "get the token",
            ],
        ),
        (None, {}, "failed", ["no TrainingRuntime hagane"]),
        (
            runtime_of(jobset_replicatedJobs=[]),
            {},
            "failed",
            ["no replicated job and container 'node'"],
        ),
    ],
)
def test_what_a_runtime_does_not_keep_is_named(
    runtime: Any, cluster: Any, state: str, found: list[str]
) -> None:
    tree = {
        "name": "t",
        "store": "s3://b/r",
        "backend": "trainjob",
        "model": {"source": "m"},
        "data": {"train": "d"},
        "cluster": cluster,
    }
    finding = runtime_finding(spec_from_parameter(tree), "TrainingRuntime", runtime)
    assert finding.state == state
    assert all(each in finding.found for each in found), finding.found
    assert bool(finding.fix) is (state != "ok")


def cluster_queue(**changes: Any) -> dict[str, Any]:
    objects = yaml.safe_load_all((ROOT / "k8s" / "examples" / "kueue.yaml").read_text())
    queue = next(each for each in objects if each["kind"] == "ClusterQueue")
    return {**queue, "spec": {**queue["spec"], **changes}}


MEMORY_AND_DISK = {"memory": Decimal(2**30), "ephemeral-storage": Decimal(2**30)}


@pytest.mark.parametrize(
    ("queue", "needs", "state", "found"),
    [
        (cluster_queue(), MEMORY_AND_DISK, "ok", "covers ephemeral-storage, memory"),
        (cluster_queue(), {"amd.com/gpu": Decimal(1)}, "failed", "does not cover amd.com/gpu"),
        (
            cluster_queue(),
            {"nvidia.com/gpu": Decimal(12)},
            "failed",
            "is too small for the job: 24 nvidia.com/gpu, of 16 nvidia.com/gpu",
        ),
        (
            cluster_queue(cohortName="all"),
            {"nvidia.com/gpu": Decimal(12)},
            "warning",
            "is too small",
        ),
        (cluster_queue(stopPolicy="Hold"), MEMORY_AND_DISK, "failed", "is held (stopPolicy Hold)"),
        (None, MEMORY_AND_DISK, "failed", "no ClusterQueue hagane"),
    ],
)
def test_a_cluster_queue_that_can_never_admit_the_job_is_named(
    queue: Any, needs: Any, state: str, found: str
) -> None:
    finding = quota_finding("hagane", queue, needs, 2, quantities)
    assert (finding.state, found in finding.found) == (state, True), finding.found
    assert bool(finding.fix) is (state != "ok")


@pytest.mark.parametrize(
    ("queueing", "state", "found"),
    [
        (Queueing(), "failed", "Kueue made no Workload for a PyTorchJob within 15 s"),
        (Queueing(unread="the launcher's account may not list"), "skipped", "may not list"),
        (
            Queueing(
                workload={
                    "status": {
                        "conditions": [
                            {
                                "type": "QuotaReserved",
                                "status": "False",
                                "message": "LocalQueue q doesn't exist",
                            }
                        ]
                    }
                }
            ),
            "failed",
            "LocalQueue q doesn't exist",
        ),
        (
            Queueing(
                workload={"status": {"conditions": [{"type": "QuotaReserved", "status": "True"}]}}
            ),
            "ok",
            "Kueue makes a Workload for a PyTorchJob in queue q",
        ),
    ],
)
def test_whether_kueue_looks_at_this_kind_of_job_is_seen_by_its_workload(
    queueing: Queueing, state: str, found: str
) -> None:
    finding = effect_finding(PYTORCHJOB, "q", queueing, waited_s=15)
    assert (finding.state, found in finding.found) == (state, True), finding.found


def test_a_default_queue_that_the_spec_does_not_name_is_warned_of() -> None:
    finding = default_queue_finding("n")
    assert finding.state == "warning"
    assert "cluster.queue: default" in finding.fix


def pod(**status: Any) -> dict[str, Any]:
    return {"status": status}


def waiting(reason: str) -> dict[str, Any]:
    return pod(
        containerStatuses=[
            {"name": "pytorch", "state": {"waiting": {"reason": reason, "message": "why"}}}
        ]
    )


def test_a_pod_that_will_never_run_is_given_up_at_once_and_one_on_its_way_is_not() -> None:
    assert ended_early(PYTORCHJOB, waiting("ImagePullBackOff")) == Probed(
        "no image", "ImagePullBackOff: why"
    )
    assert ended_early(PYTORCHJOB, waiting("CreateContainerConfigError")) == Probed(
        "not started", "CreateContainerConfigError: why"
    )
    assert ended_early(PYTORCHJOB, waiting("ContainerCreating")) is None


def test_what_a_pod_waited_for_is_reported() -> None:
    assert still_waiting(None, ["quota", "exceeded"]) == Probed("no pod", "exceeded")
    unscheduled = [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]
    assert still_waiting(pod(conditions=unscheduled), []) == Probed("no node", "0/1 nodes")


def ended(code: int) -> dict[str, Any]:
    return pod(
        containerStatuses=[
            {"name": "pytorch", "state": {"terminated": {"exitCode": code, "reason": "Error"}}}
        ]
    )


def test_what_the_probe_printed_is_heard() -> None:
    lines = [
        f'{{"event":"environment","prefix":"{KEYS}","names":["K"]}}',
        '{"event":"store_used","if_absent":true}',
    ]
    assert heard(PYTORCHJOB, lines, ended(0)) == Probed(
        "ran", environment={KEYS: ("K",)}, store={"if_absent": True}
    )
    failed = '{"event":"failed","problems":["s3://b/r: no"],"exit_code":2}'
    assert heard(PYTORCHJOB, [failed], ended(2)) == Probed("ran", problems=("s3://b/r: no",))
    assert (
        heard(PYTORCHJOB, ["Traceback", "ModuleNotFoundError: x"], ended(1)).detail
        == "Error, exit code 1: ModuleNotFoundError: x"
    )


def test_a_probe_whose_log_cannot_be_read_is_not_called_well() -> None:
    probed = heard(PYTORCHJOB, [], ended(0))
    finding = pod_finding(probed, "hagane-worker")
    assert (finding.state, "its log could not be read" in finding.found) == ("failed", True)
    image = image_finding("train:1", probed)
    assert image is not None
    assert image.state == "ok"


def test_a_store_that_was_not_asked_is_not_called_reached() -> None:
    reported = [
        each.found
        for probed in (Probed("ran"), Probed("ran", store={"if_absent": True}))
        for each in source_findings(SOURCES, probed, "n")
    ]
    assert ["the store was reached" in each for each in reported] == [False, False, True, True]


def test_a_secret_that_is_not_there_is_a_failure_only_where_the_store_failed() -> None:
    fails, works = (
        Probed("ran", problems=("s3://b/r: no credentials; set",)),
        Probed("ran", store={"if_absent": True}),
    )
    assert [each.state for each in source_findings(SOURCES, fails, "n")] == ["warning", "failed"]
    assert [each.state for each in source_findings(SOURCES, works, "n")] == ["warning", "warning"]
    found = Probed(
        "ran", environment={SETTINGS: ("A",), KEYS: ("B", "C")}, store={"if_absent": True}
    )
    assert [each.found for each in source_findings(SOURCES, found, "n")] == ["sets A", "sets B, C"]


def test_a_store_problem_of_the_environment_says_where_that_is_from() -> None:
    (finding,) = store_findings(
        "s3://b/r",
        SOURCES,
        Probed("ran", problems=("s3://b/r: wrong key; check AWS_ACCESS_KEY_ID",)),
        "n",
    )
    assert finding.fix == (
        "check AWS_ACCESS_KEY_ID; the workers' environment comes from ConfigMap hagane, Secret "
        "hagane-s3 in namespace n"
    )
    (finding,) = store_findings(
        "s3://b/r", SOURCES, Probed("ran", problems=("s3://b/r: no bucket; create it",)), "n"
    )
    assert finding.fix == "create it"


def test_a_server_that_lets_every_writer_win_is_warned_of() -> None:
    assert [
        each.state
        for each in store_findings(
            "s3://b/r", SOURCES, Probed("ran", store={"if_absent": False}), "n"
        )
    ] == ["ok", "warning"]


@pytest.mark.parametrize(
    ("probed", "fix"),
    [
        (Probed("no pod"), "training-operator"),
        (Probed("no pod", 'Error: serviceaccount "w" not found'), "cluster.service_account"),
        (Probed("no pod", "exceeded quota: hagane"), "a quota"),
        (Probed("refused", "x"), "a quota"),
        (Probed("no node", "0/1"), "cluster.node_selector"),
        (Probed("not started", "OOMKilled"), "a volume"),
    ],
)
def test_how_far_the_pod_came_decides_what_to_do(probed: Probed, fix: str) -> None:
    finding = pod_finding(probed, "w")
    assert finding.state == "failed"
    assert fix in finding.fix
    assert image_finding("i", probed) is None
    assert (
        source_findings(SOURCES, probed, "n")
        == store_findings("s3://b/r", SOURCES, probed, "n")
        == []
    )


def test_an_image_that_is_not_pulled_is_the_one_failure_reported() -> None:
    probed = Probed("no image", "ErrImagePull: not found")
    assert pod_finding(probed, "w").state == "warning"
    finding = image_finding("reg/train:1", probed)
    assert finding is not None
    assert finding.line.startswith(
        "image: reg/train:1: ErrImagePull: not found; check images/images.yaml"
    )


def test_a_queue_that_is_missing_or_admits_nothing_is_reported() -> None:
    stopped = [
        {
            "type": "Active",
            "status": "False",
            "message": "Can't submit new workloads to clusterQueue",
        }
    ]
    assert "no LocalQueue q in namespace n" in queue_finding("q", "n", None, []).found
    assert "admits nothing: Can't submit" in queue_finding("q", "n", {}, stopped).found
    assert queue_finding("q", "n", {}, [{"type": "Active", "status": "True"}]).state == "ok"
