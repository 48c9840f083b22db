"""`python -m components.launch_training.doctor`: looks at a cluster as a run would need it, and tells each finding as an event.

For `hagane doctor`, which has the plan made first and shows the table. Whatever fails, the checks that do not stand on it go on.
"""

import argparse
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from components.launch_training import cluster_facts
from components.launch_training.access import TOO_MUCH, beyond, needed, shipped
from components.launch_training.cluster import Cluster
from components.launch_training.cluster_access import api_as, may_not_impersonate, refused, rules_of
from components.launch_training.cluster_facts import NotAllowed
from components.launch_training.diagnosis import (
    account_finding,
    excess_finding,
    image_finding,
    kind_finding,
    permissions_finding,
    pod_finding,
    queue_finding,
    runtime_finding,
    source_findings,
    store_findings,
)
from components.launch_training.fitting import node_finding
from components.launch_training.kinds import KINDS, PYTORCHJOB, TRAINJOB
from components.launch_training.probe import Sources, probe_job
from components.launch_training.probing import probe
from components.shared.errors import ClusterError
from components.shared.findings import Finding
from components.shared.spec import RunSpec
from components.shared.spec_file import load_spec
from components.shared.step import Log, step_log
from components.shared.training_job import PYTORCHJOB_CONTAINER

Fields = dict[str, Any]
OTHER_NAMESPACES = ("default", "kube-system")


class Examination:
    """Everything that is looked at, in the order in which it is told."""

    def __init__(
        self, cluster: Cluster, spec: RunSpec | None, manifest: Fields | None, *, image: str, launcher: str, seconds: int, log: Log
    ):
        self.cluster, self.spec, self.manifest, self.image, self.seconds, self.log = cluster, spec, manifest, image, seconds, log
        self.namespace = cluster.namespace
        self.account = None if launcher == "self" or in_a_pod() else launcher
        """Whom the launcher's rights are asked for; None for whoever asks."""
        self.kind = KINDS[spec.backend] if spec is not None and spec.backend in KINDS else PYTORCHJOB

    def run(self) -> None:
        checks: list[tuple[str, Callable[[], Iterable[Finding | None]]]] = [
            (self.kind.name, self.kinds),
            ("permissions", self.permissions),
            ("no more than that", self.excess),
            ("launcher's account", self.launchers_account),
            ("Kueue queue", self.queue),
            ("nodes", self.nodes),
            ("worker pod", self.worker_pod),
        ]
        for name, check in checks:
            for finding in attempted(name, check):
                self.log.info("check", **finding.model_dump())

    def kinds(self) -> Iterable[Finding]:
        kind, there = self.kind, cluster_facts.served(**self.kind.where)
        versions = [] if there else cluster_facts.versions_of(kind.group)
        install = f"install {kind.installed_by}, or set another backend"
        yield kind_finding(kind.name, f"{kind.group}/{kind.version}", there=there, versions=versions, install=install)
        if there and kind is TRAINJOB and self.spec is not None:
            name = self.spec.cluster.runtime
            yield runtime_finding(name, there=cluster_facts.has_runtime(name))

    def permissions(self) -> Iterable[Finding]:
        wanted = needed(self.kind)
        with may_not_impersonate(self.account):
            missing = refused(api_as(self.account, self.namespace), wanted, self.namespace)
        yield permissions_finding(self.who, missing, len(wanted))

    def excess(self) -> Iterable[Finding]:
        api = api_as(self.account, self.namespace)
        with may_not_impersonate(self.account):
            rules = rules_of(api, self.namespace)
            others = {name: set(refused(api, TOO_MUCH, name)) for name in OTHER_NAMESPACES if name != self.namespace}
        elsewhere = [f"{each} in namespace {name}" for name, denied in others.items() for each in TOO_MUCH if each not in denied]
        yield excess_finding(self.who, beyond(rules, shipped()), elsewhere)

    @property
    def who(self) -> str:
        return self.account or ("this pod's account" if in_a_pod() else "whoever asks")

    def launchers_account(self) -> Iterable[Finding]:
        if self.account is not None:
            there = cluster_facts.has_account(self.account, self.namespace)
            yield account_finding("launcher's account", self.account, self.namespace, there=there)

    def queue(self) -> Iterable[Finding]:
        name = None if self.spec is None else self.spec.cluster.queue
        if name is None:
            return
        versions = cluster_facts.versions_of("kueue.x-k8s.io")
        if not versions:
            yield kind_finding("Kueue", "kueue.x-k8s.io", there=False, versions=[], install="install Kueue, or leave cluster.queue out")
            return
        queue = cluster_facts.local_queue(name, self.namespace, versions[0])
        conditions = [] if queue is None else queue.get("status", {}).get("conditions", [])
        yield queue_finding(name, self.namespace, queue, conditions)

    def nodes(self) -> Iterable[Finding]:
        if self.manifest is None:
            raise NotAllowed("needs a plan, which says what a pod asks for")
        replicas = self.manifest["spec"]["pytorchReplicaSpecs"]
        pod = replicas["Master"]["template"]["spec"]
        needs: dict[str, Any] = {}
        for container in pod["containers"]:
            resources = container.get("resources", {})
            for name, amount in cluster_facts.quantities({**resources.get("limits", {}), **resources.get("requests", {})}).items():
                needs[name] = needs.get(name, 0) + amount
        num_pods = sum(each["replicas"] for each in replicas.values())
        yield node_finding(cluster_facts.nodes(), needs, num_pods, pod)

    def worker_pod(self) -> Iterable[Finding | None]:
        if self.manifest is None or self.spec is None:
            raise NotAllowed("needs a plan, which says what a pod is like")
        sources = Sources(self.spec.cluster.config_maps, self.spec.cluster.secrets)
        account, image = self.spec.cluster.service_account, self.image_of(self.manifest)
        store = self.spec.run_uri if self.spec.store.startswith("s3://") else None
        name = f"hagane-doctor-{uuid.uuid4().hex[:8]}"
        job = probe_job(self.manifest, name, image=self.image, sources=sources, store=store, seconds=self.seconds)
        as_pod = not cluster_facts.served(**PYTORCHJOB.where)
        probed = probe(self.cluster, job, as_pod=as_pod, seconds=self.seconds, log=self.log)
        yield pod_finding(probed, account)
        yield image_finding(image, probed)
        yield from source_findings(sources, probed, self.namespace)
        if store is None:
            mend = "must be s3://bucket/prefix"
            yield Finding(check="store", state="failed", found=f"{self.spec.store!r} is a folder, and pods share none", mend=mend)
        yield from store_findings(self.spec.run_uri, sources, probed, self.namespace)

    def image_of(self, manifest: Fields) -> str:
        (container,) = [
            each
            for each in manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
            if each["name"] == PYTORCHJOB_CONTAINER
        ]
        return container.get("image", self.image)


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
    found, _, mend = error.problems[0].partition("; ")
    return Finding(check=name, state="failed", found=found, mend=mend)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m components.launch_training.doctor", description=__doc__)
    parser.add_argument("--spec", metavar="FILE", type=Path, help="the run's spec; without it, only the cluster itself is looked at")
    parser.add_argument("--manifest", metavar="FILE", type=Path, help="the spec's plan as a PyTorchJob, whatever its backend")
    parser.add_argument("--image", default="", help="what the workers run in")
    parser.add_argument("--namespace", help="without it, the spec's, else the pod's own or the kubeconfig's")
    parser.add_argument("--launcher", metavar="ACCOUNT", default="hagane-launcher", help="whose rights to look at; self: of who asks")
    parser.add_argument("--seconds", type=int, default=300, help="longest wait for the pod")
    asked = parser.parse_args()
    with step_log("launch_training") as log:
        spec = None if asked.spec is None else load_spec(asked.spec)
        manifest = None if asked.manifest is None else yaml.safe_load(asked.manifest.read_bytes())
        try:
            cluster = Cluster(asked.namespace or (spec.cluster.namespace if spec is not None else None))
            version = cluster_facts.server_version()
        except ClusterError as error:
            log.info("check", **failed("cluster", error).model_dump())
            rest = Finding(check="all else there", state="skipped", found="the cluster does not answer")
            log.info("check", **rest.model_dump())
            return
        found = f"Kubernetes {version}, namespace {cluster.namespace}"
        log.info("check", **Finding(check="cluster", state="ok", found=found).model_dump())
        examination = Examination(cluster, spec, manifest, image=asked.image, launcher=asked.launcher, seconds=asked.seconds, log=log)
        examination.run()


if __name__ == "__main__":
    main()
