"""`hagane doctor` for both kinds of job, their runtime and their queue: each fault planted, and named with its fix.

Trainer and Kueue need a newer Kubernetes than test clusters have here: their kinds are served without their controllers (kueue.py,
trainer.py), and a Workload appears for a suspended job where a test has one made. The pod is not looked at here.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from components.launch_training.doctor.examination import Examination, attempted
from components.launch_training.job.kinds import KINDS
from components.launch_training.kubernetes_api.client import Cluster
from components.render_config.planner import Machine, make_plan
from components.render_config.render.pytorchjob import pytorchjob
from components.render_config.render.trainjob import trainjob
from components.shared.documents.findings import Finding
from components.shared.log import set_up_log
from components.shared.spec.file import load_spec
from tests.cluster.conftest import ROOT, TestNamespace, kubectl
from tests.cluster.kueue import QUOTA_RESERVED, kinds_served, set_workload
from tests.cluster.launcher import kubeconfig_of
from tests.cluster.test_doctor import Patient, states
from tests.cluster.trainer import trainer
from tests.support.command_line import Finished
from tests.support.s3_server import S3Server
from tests.unit.render_config.test_planner import CONFIG, DATASET

RUNTIMES = ("TrainingRuntime", "ClusterTrainingRuntime")
BACKENDS = ("pytorchjob", "trainjob")


class Site:
    """A namespace with a queue and a runtime, each of which a test may spoil."""

    def __init__(self, patient: Patient, backend: str, **cluster: Any) -> None:
        self.patient, self.backend, self.namespace = patient, backend, patient.namespace
        tree = yaml.safe_load(patient.spec.read_text())
        tree |= {"backend": backend, "cluster": tree["cluster"] | {"queue": "hagane", **cluster}}
        patient.spec.write_text(yaml.safe_dump(tree))
        queues = yaml.safe_load_all((ROOT / "k8s" / "examples" / "kueue.yaml").read_text())
        self.objects: dict[str, dict[str, Any]] = {each["kind"]: each for each in queues}
        self.runtime: dict[str, Any] | None = yaml.safe_load((ROOT / "k8s" / "overlays" / "trainjob" / "runtime.yaml").read_text())
        self.kueue, self.looks = True, True

    def examine(self, *arguments: str, env: dict[str, str] | None = None) -> Finished:
        """What doctor said. Nothing is left while the kinds are still served: Kubernetes' garbage collector does not delete the pods of
        a job whose kind is no longer there."""
        with self._served():
            done = self.patient.doctor("--seconds", "10", *arguments, env=env)
            self.patient.wait_until_nothing_is_left()
        return done

    def findings(self) -> dict[str, Finding]:
        """Of kind, runtime and queue alone, by their names, without a process or a pod."""
        spec, kind = load_spec(self.patient.spec), KINDS[self.backend]
        plan = make_plan(spec, DATASET, CONFIG, machine=Machine())
        manifest = trainjob(spec, plan) if self.backend == "trainjob" else pytorchjob(spec, plan)
        manifest = json.loads(json.dumps(manifest))
        log = set_up_log("launch_training")
        with self._served():
            doctor = Examination(
                Cluster(self.namespace.name, kind),
                spec,
                manifest,
                image="localhost/none:1",
                launcher="hagane-launcher",
                seconds=10,
                log=log,
            )
            checks = (doctor.kinds, doctor.runtime, doctor.queue, doctor.quota, doctor.queue_effect)
            return {each.check: each for check in checks for each in attempted(check.__name__, check)}

    @contextmanager
    def _served(self) -> Iterator[None]:
        """All that the site has is there inside the block."""
        with ExitStack() as stack:
            if self.backend == "trainjob":
                stack.enter_context(trainer(self.namespace.name))
                stack.enter_context(kinds_served("trainer.kubeflow.org", "v1alpha1", *RUNTIMES))
                self._apply(self.runtime)
            if self.kueue:
                stack.enter_context(kinds_served("kueue.x-k8s.io", "v1beta2", "Workload", "LocalQueue", "ClusterQueue"))
                self._apply(self.objects.get("ClusterQueue"))
                self._apply(self.objects.get("LocalQueue"))
                if self.looks:
                    stack.enter_context(self._workloads())
            yield

    def _apply(self, manifest: dict[str, Any] | None) -> None:
        if manifest is not None:
            manifest["metadata"].pop("namespace", None)
            kubectl("-n", self.namespace.name, "apply", "--validate=false", "-f", "-", given=yaml.safe_dump(manifest))

    @contextmanager
    def _workloads(self) -> Iterator[None]:
        """Every suspended job is given a Workload with its quota, inside the block."""
        over, where = threading.Event(), KINDS[self.backend].where

        def look() -> None:
            while not over.wait(0.3):
                with suppress(ApiException):
                    objects: Any = client.CustomObjectsApi()
                    for job in objects.list_namespaced_custom_object(**where, namespace=self.namespace.name)["items"]:
                        if KINDS[self.backend].is_suspended(job):
                            set_workload(job, QUOTA_RESERVED)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture
def patient(namespace: TestNamespace, s3: S3Server, tmp_path: Path) -> Patient:
    return Patient(namespace, s3, tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_site_with_a_runtime_and_a_queue_is_well(backend: str, patient: Patient) -> None:
    done = Site(patient, backend).examine()
    print(done.output, *done.errors, sep="\n")
    of_jobs = ("permissions", "no more than that", "Kueue queue", "queue's quota", "queue's effect")
    expected = dict.fromkeys((*of_jobs, *(["runtime", "TrainJob"] if backend == "trainjob" else ["PyTorchJob"])), "ok")
    assert expected.items() <= states(done).items(), done.output


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_launchers_own_account_may_not_look_at_is_skipped_alone(backend: str, patient: Patient, tmp_path: Path) -> None:
    file = kubeconfig_of("hagane-launcher", patient.namespace, tmp_path)
    done = Site(patient, backend).examine("--launcher", "self", env={"KUBECONFIG": str(file)})
    print(done.output, *done.errors, sep="\n")
    skipped = {name for name, state in states(done).items() if state == "skipped"}
    assert {"Kueue queue", "queue's quota", "nodes"} <= skipped
    assert ("runtime" in skipped) is (backend == "trainjob")
    assert {"permissions": "ok", "queue's effect": "ok"}.items() <= states(done).items(), done.output


def no_kueue(site: Site) -> None:
    site.kueue = False


def no_queue(site: Site) -> None:
    del site.objects["LocalQueue"]


def held(site: Site) -> None:
    site.objects["ClusterQueue"]["spec"]["stopPolicy"] = "Hold"


def without_disk(site: Site) -> None:
    (group,) = site.objects["ClusterQueue"]["spec"]["resourceGroups"]
    group["coveredResources"].remove("ephemeral-storage")


def too_small(site: Site) -> None:
    (group,) = site.objects["ClusterQueue"]["spec"]["resourceGroups"]
    group["flavors"][0]["resources"][1]["nominalQuota"] = "64Mi"


def not_looked_at(site: Site) -> None:
    site.looks = False


def no_runtime(site: Site) -> None:
    site.runtime = None


def stock_policy(site: Site) -> None:
    assert site.runtime is not None
    jobset = site.runtime["spec"]["template"]["spec"]
    del jobset["failurePolicy"]
    jobset["replicatedJobs"][0]["template"]["spec"] = {"template": {"spec": {"containers": [{"name": "node"}]}}}


QUEUE_FAULTS = [
    (no_kueue, "Kueue", "failed", "this cluster has no Kueue"),
    (no_queue, "Kueue queue", "failed", "no LocalQueue hagane"),
    (held, "queue's quota", "failed", "is held (stopPolicy Hold)"),
    (without_disk, "queue's quota", "failed", "does not cover ephemeral-storage"),
    (too_small, "queue's quota", "failed", "is too small for the job: "),
    (not_looked_at, "queue's effect", "failed", "Kueue made no Workload"),
]
RUNTIME_FAULTS = [
    (no_runtime, "runtime", "failed", "no TrainingRuntime hagane"),
    (stock_policy, "runtime", "warning", "backoffLimit 6, counted over all pods"),
]
FAULTS = [(backend, *fault) for backend in BACKENDS for fault in QUEUE_FAULTS] + [("trainjob", *fault) for fault in RUNTIME_FAULTS]


@pytest.mark.parametrize(("backend", "spoil", "check", "state", "words"), FAULTS)
def test_a_fault_of_queue_or_runtime_is_named(backend: str, spoil: Any, check: str, state: str, words: str, patient: Patient) -> None:
    site = Site(patient, backend)
    spoil(site)
    findings = site.findings()
    print(f"{backend}, {spoil.__name__}: {[f'{each.state}: {each.line}' for each in findings.values() if each.state != 'ok']}")
    assert findings[check].state == state
    assert words in findings[check].found
    assert findings[check].mend != ""
