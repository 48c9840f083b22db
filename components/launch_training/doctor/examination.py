"""`python -m components.launch_training.doctor`: looks at a cluster as a run would need it, and
tells each finding as an event.

For `hagane doctor`, which has the plan made first and shows the table. Whatever fails, the checks
that do not stand on it go on.
"""

import argparse
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from components.launch_training.doctor.diagnosis import (
    account_finding,
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
from components.launch_training.doctor.gpu_job import CHECK, gpu_check_job
from components.launch_training.doctor.gpu_run import probe_gpus
from components.launch_training.doctor.probe_job import Sources, probe_job, probe_pod, queued_probe
from components.launch_training.doctor.probe_run import probe, probe_queue
from components.launch_training.doctor.queue_checks import (
    DEFAULT_QUEUE,
    default_queue_finding,
    effect_finding,
    quota_finding,
)
from components.launch_training.doctor.runtime_policy import runtime_finding
from components.launch_training.job.kinds import KINDS, PYTORCHJOB, TRAINJOB
from components.launch_training.job.node_capacity import node_finding
from components.launch_training.job.permissions import TOO_MUCH, beyond, needed, shipped
from components.launch_training.job.worker_pod import worker_template
from components.launch_training.kubernetes_api import facts as cluster_facts
from components.launch_training.kubernetes_api.access_reviews import (
    api_as,
    may_not_impersonate,
    refused,
    rules_of,
)
from components.launch_training.kubernetes_api.client import Cluster
from components.launch_training.kubernetes_api.facts import NotAllowed
from components.shared.documents.findings import Finding
from components.shared.documents.gpu_check import CPU_S, CheckRequest, for_one_node, request_of
from components.shared.errors import ClusterError
from components.shared.job.permissions import ARGO, KFP_POD_PERMISSIONS
from components.shared.job.training_job import OWN_RUNTIME
from components.shared.spec.file import load_spec
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log, step_log

Fields = dict[str, Any]
OTHER_NAMESPACES = ("default", "kube-system")
KFP_NAMESPACE = "kubeflow"
"""Where KFP's manifests put Argo's controller."""
GPU_CHECK_POD_S = CPU_S + 60
"""How long a pod that checks its node may take, its image's start included."""
EFFECT_S = 15
"""How long Kueue may take to make a Workload."""


class Examination:
    """Everything that is looked at, in the order in which it is reported."""

    def __init__(
        self,
        cluster: Cluster,
        spec: RunSpec | None,
        manifest: Fields | None,
        *,
        image: str,
        launcher: str,
        seconds: int,
        log: Log,
        gpu_request: CheckRequest | None = None,
    ):
        """`gpu_request`: what to check on the nodes themselves, by a job of the run's own shape;
        None: nothing."""
        self.cluster, self.spec, self.manifest, self.image, self.seconds, self.log = (
            cluster,
            spec,
            manifest,
            image,
            seconds,
            log,
        )
        self.gpu_request = gpu_request
        self.namespace = cluster.namespace
        self.account = account_of(launcher)
        self.kind = cluster.kind

    def run(self) -> None:
        checks: list[tuple[str, Callable[[], Iterable[Finding | None]]]] = [
            (self.kind.name, self.kinds),
            ("runtime", self.runtime),
            ("permissions", self.permissions),
            ("permissions of KFP", self.kfp_permissions),
            ("no more than that", self.excess),
            ("KFP's retries", self.retries),
            ("launcher's account", self.launchers_account),
            ("Kueue queue", self.queue),
            ("queue's quota", self.quota),
            ("queue's effect", self.queue_effect),
            ("nodes", self.nodes),
            ("worker pod", self.worker_pod),
            (CHECK, self.gpus),
        ]
        for name, check in checks:
            for finding in attempted(name, check):
                self.log.info("check", **finding.model_dump())

    def kinds(self) -> Iterable[Finding]:
        kind, there = self.kind, cluster_facts.served(**self.kind.where)
        if there:
            versions = []
        else:
            versions = cluster_facts.versions_of(kind.group)
        install = f"install {kind.installed_by}, or set another backend"
        yield kind_finding(
            kind.name,
            f"{kind.group}/{kind.version}",
            there=there,
            versions=versions,
            install=install,
        )

    def runtime(self) -> Iterable[Finding]:
        if (
            self.kind is not TRAINJOB
            or self.spec is None
            or not cluster_facts.served(**TRAINJOB.where)
        ):
            return
        name = self.spec.cluster.runtime
        if name == OWN_RUNTIME:
            kind = "TrainingRuntime"
        else:
            kind = "ClusterTrainingRuntime"
        yield runtime_finding(self.spec, kind, cluster_facts.runtime(kind, name, self.namespace))

    def permissions(self) -> Iterable[Finding]:
        wanted = needed(self.kind)
        with may_not_impersonate(self.account):
            missing = refused(api_as(self.account, self.namespace), wanted, self.namespace)
        yield permissions_finding(self.who, missing, len(wanted))

    def kfp_permissions(self) -> Iterable[Finding]:
        if self.asks_for_a_person:
            raise NotAllowed("for the account of a pipeline's pods: --launcher ACCOUNT")
        if not cluster_facts.versions_of(ARGO):
            raise NotAllowed("no Argo Workflows here, so no KFP either")
        with may_not_impersonate(self.account):
            missing = refused(
                api_as(self.account, self.namespace), KFP_POD_PERMISSIONS, self.namespace
            )
        yield kfp_permissions_finding(self.who, missing, len(KFP_POD_PERMISSIONS))

    def retries(self) -> Iterable[Finding]:
        if cluster_facts.versions_of(ARGO):
            yield retries_finding(cluster_facts.argo_defaults((self.namespace, KFP_NAMESPACE)))

    def excess(self) -> Iterable[Finding]:
        if self.asks_for_a_person:
            raise NotAllowed("your own rights are not judged; an account's: --launcher ACCOUNT")
        api = api_as(self.account, self.namespace)
        with may_not_impersonate(self.account):
            rules = rules_of(api, self.namespace)
            others = {
                name: set(refused(api, TOO_MUCH, name))
                for name in OTHER_NAMESPACES
                if name != self.namespace
            }
        elsewhere = [
            f"{each} in namespace {name}"
            for name, denied in others.items()
            for each in TOO_MUCH
            if each not in denied
        ]
        wanted = (*shipped(), *KFP_POD_PERMISSIONS)
        yield excess_finding(self.who, beyond(rules, wanted), elsewhere)

    @property
    def asks_for_a_person(self) -> bool:
        """Whether the rights looked at are those of whoever typed the command."""
        return self.account is None and not in_a_pod()

    @property
    def who(self) -> str:
        return self.account or ("you" if self.asks_for_a_person else "this pod's account")

    def launchers_account(self) -> Iterable[Finding]:
        if self.account is not None:
            there = cluster_facts.has_account(self.account, self.namespace)
            yield account_finding("launcher's account", self.account, self.namespace, there=there)

    def queue(self) -> Iterable[Finding]:
        if self.spec is None:
            name = None
        else:
            name = self.spec.cluster.queue
        version = cluster_facts.kueue()
        if version is None:
            if name is not None:
                yield kind_finding(
                    "Kueue",
                    "kueue.x-k8s.io",
                    there=False,
                    versions=[],
                    install="install Kueue, or leave cluster.queue out",
                )
            return
        queue = cluster_facts.local_queue(name or DEFAULT_QUEUE, self.namespace, version)
        if name is None:
            if queue is not None:
                yield default_queue_finding(self.namespace)
            return
        if queue is None:
            conditions = []
        else:
            conditions = queue.get("status", {}).get("conditions", [])
        yield queue_finding(name, self.namespace, queue, conditions)

    def quota(self) -> Iterable[Finding]:
        """Whether the ClusterQueue behind the queue could ever admit the job."""
        version = cluster_facts.kueue()
        if self.spec is None or self.spec.cluster.queue is None or version is None:
            return
        queue = cluster_facts.local_queue(self.spec.cluster.queue, self.namespace, version)
        if queue is None:
            return
        name = queue["spec"]["clusterQueue"]
        found = cluster_facts.cluster_queue(name, version)
        yield quota_finding(
            name, found, self.requests(), self.spec.hardware.num_nodes, cluster_facts.quantities
        )

    def queue_effect(self) -> Iterable[Finding]:
        """Whether Kueue looks at this kind of job: its default leaves PyTorchJobs out."""
        if self.spec is None or self.spec.cluster.queue is None or cluster_facts.kueue() is None:
            return
        if not cluster_facts.served(**self.kind.where):
            return
        queue, waited_s = self.spec.cluster.queue, min(EFFECT_S, self.seconds)
        found = probe_queue(
            self.cluster, queued_probe(self.probe_job(), self.kind, queue), seconds=waited_s
        )
        yield effect_finding(self.kind, queue, found, waited_s=waited_s)

    def nodes(self) -> Iterable[Finding]:
        manifest, spec = self.planned()
        pod = worker_template(manifest, self.kind)["spec"]
        yield node_finding(cluster_facts.nodes(), self.requests(), spec.hardware.num_nodes, pod)

    def planned(self) -> tuple[Fields, RunSpec]:
        """The plan's job and the spec. Raises NotAllowed without a plan."""
        if self.manifest is None or self.spec is None:
            raise NotAllowed("needs a plan, which says what a pod is like")
        return self.manifest, self.spec

    def requests(self) -> dict[str, Decimal]:
        """Resource -> what one pod asks for, what is only limited included."""
        needs: dict[str, Decimal] = {}
        for container in worker_template(self.planned()[0], self.kind)["spec"]["containers"]:
            resources = container.get("resources", {})
            for name, amount in cluster_facts.quantities(
                {**resources.get("limits", {}), **resources.get("requests", {})}
            ).items():
                needs[name] = needs.get(name, Decimal(0)) + amount
        return needs

    def probe_job(self, *, as_pod: bool = False) -> Fields:
        """A small job like the plan's, or its pod alone."""
        manifest, spec = self.planned()
        if as_pod:
            make = probe_pod
        else:
            make = probe_job
        return make(
            manifest,
            self.kind,
            f"hagane-doctor-{uuid.uuid4().hex[:8]}",
            image=self.image,
            sources=sources_of(spec),
            store=store_of(spec),
            seconds=self.seconds,
        )

    def worker_pod(self) -> Iterable[Finding | None]:
        manifest, spec = self.planned()
        account, image, sources = (
            spec.cluster.service_account,
            self.image_of(manifest),
            sources_of(spec),
        )
        as_pod = not cluster_facts.served(**self.kind.where)
        probed = probe(
            self.cluster, self.probe_job(as_pod=as_pod), seconds=self.seconds, log=self.log
        )
        yield pod_finding(probed, account, self.kind.name)
        yield image_finding(image, probed)
        yield from source_findings(sources, probed, self.namespace)
        if store_of(spec) is None:
            fix = "must be s3://bucket/prefix"
            yield Finding(
                check="store",
                state="failed",
                found=f"{spec.store!r} is a folder, and pods share none",
                fix=fix,
            )
        yield from store_findings(spec.run_uri, sources, probed, self.namespace)

    def gpus(self) -> Iterable[Finding]:
        """The nodes themselves, by a job of the run's own shape."""
        if self.gpu_request is None:
            return
        manifest, _ = self.planned()
        if not cluster_facts.served(**self.kind.where):
            raise NotAllowed(f"no {self.kind.name} can be made here")
        num_nodes = self.gpu_request.num_nodes
        longest_s = self.seconds + GPU_CHECK_POD_S
        job = gpu_check_job(
            manifest,
            self.kind,
            f"hagane-doctor-{uuid.uuid4().hex[:8]}",
            image=self.image,
            request=self.gpu_request,
            longest_s=longest_s,
        )
        yield from probe_gpus(
            self.cluster,
            job,
            num_nodes=num_nodes,
            start_s=self.seconds,
            check_s=GPU_CHECK_POD_S,
            log=self.log,
        )

    def image_of(self, manifest: Fields) -> str:
        containers = worker_template(manifest, self.kind)["spec"]["containers"]
        (container,) = [each for each in containers if each["name"] == self.kind.container]
        return container.get("image", self.image)


def sources_of(spec: RunSpec) -> Sources:
    return Sources(spec.cluster.config_maps, spec.cluster.secrets)


def store_of(spec: RunSpec) -> str | None:
    """The run's folder in a store that pods reach; None where it is none."""
    if spec.store.startswith("s3://"):
        return spec.run_uri
    return None


def account_of(launcher: str) -> str | None:
    """Whom the launcher's rights are asked for; None for whoever asks."""
    if launcher == "self" or in_a_pod():
        return None
    return launcher


def in_a_pod() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ


def attempted(name: str, check: Callable[[], Iterable[Finding | None]]) -> Iterator[Finding]:
    """What the check found; that it could not be made is a finding too."""
    try:
        yield from (finding for finding in check() if finding is not None)
    except NotAllowed as error:
        yield Finding(check=name, state="skipped", found=error.problems[0])
    except ClusterError as error:
        yield failed(name, error)


def failed(name: str, error: ClusterError) -> Finding:
    found, _, fix = error.problems[0].partition("; ")
    return Finding(check=name, state="failed", found=found, fix=fix)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.launch_training.doctor", description=__doc__
    )
    parser.add_argument(
        "--spec",
        metavar="FILE",
        type=Path,
        help="the run's spec; without it, only the cluster itself is looked at",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        type=Path,
        help="the job of the spec's plan, of its backend's kind",
    )
    parser.add_argument("--image", default="", help="what the workers run in")
    parser.add_argument(
        "--namespace", help="without it, the spec's, else the pod's own or the kubeconfig's"
    )
    parser.add_argument(
        "--launcher",
        metavar="ACCOUNT",
        default="hagane-launcher",
        help="whose rights to look at; self: of who asks",
    )
    parser.add_argument("--seconds", type=int, default=300, help="longest wait for the pod")
    parser.add_argument(
        "--gpu-nodes",
        choices=("one", "all"),
        help="check this many of the run's nodes by a job of its shape",
    )
    parser.add_argument(
        "--plan", metavar="FOLDER", type=Path, help="with --gpu-nodes: plan/ of the spec"
    )
    asked = parser.parse_args()
    with step_log("launch_training") as log:
        if asked.spec is None:
            spec = None
        else:
            spec = load_spec(asked.spec)
        if asked.manifest is None:
            manifest = None
        else:
            manifest = yaml.safe_load(asked.manifest.read_bytes())
        try:
            if spec is not None:
                kind = KINDS.get(spec.backend, PYTORCHJOB)
            else:
                kind = PYTORCHJOB
            cluster = Cluster(
                asked.namespace or (spec.cluster.namespace if spec is not None else None), kind
            )
            version = cluster_facts.server_version()
        except ClusterError as error:
            log.info("check", **failed("cluster", error).model_dump())
            rest = Finding(
                check="all else there", state="skipped", found="the cluster does not answer"
            )
            log.info("check", **rest.model_dump())
            return
        there = Finding(
            check="cluster",
            state="ok",
            found=f"Kubernetes {version}, namespace {cluster.namespace}",
            namespace=cluster.namespace,
            account=account_of(asked.launcher),
        )
        log.info("check", **there.model_dump())
        if asked.gpu_nodes is None or asked.plan is None:
            request = None
        else:
            request = request_of(asked.plan)
        if request is not None and asked.gpu_nodes == "one":
            request = for_one_node(request)
        examination = Examination(
            cluster,
            spec,
            manifest,
            image=asked.image,
            launcher=asked.launcher,
            seconds=asked.seconds,
            log=log,
            gpu_request=request,
        )
        examination.run()
