"""Facts about a cluster -> findings, each with what to do about it. Takes values and returns
values."""

from components.launch_training.doctor.probe_job import Probed, Sources
from components.launch_training.job.events import NO_ACCOUNT
from components.launch_training.job.permissions import KFP_ACCOUNTS, in_words, shortened
from components.shared.documents.findings import Finding, State
from components.shared.job.permissions import BIND, Permission, granted_by


def kind_finding(
    check: str, place: str, *, there: bool, versions: list[str], install: str
) -> Finding:
    """Whether a kind is there in the version that hagane speaks. `place`: such as
    kubeflow.org/v1."""
    if there:
        return Finding(check=check, state="ok", found=f"{place} is there")
    group, _, version = place.partition("/")
    others = [each for each in versions if each != version]
    if others:
        beside = f"; the cluster has {group} as {', '.join(others)} only"
    else:
        beside = ""
    return Finding(
        check=check,
        state="failed",
        found=f"this cluster has no {check} {place}{beside}",
        fix=install,
    )


def permissions_finding(account: str, missing: list[Permission], asked: int) -> Finding:
    if not missing:
        return Finding(
            check="permissions",
            state="ok",
            found=f"{account} may do all {asked} things that a launcher does",
        )
    return _missing("permissions", account, missing)


def kfp_permissions_finding(account: str, missing: list[Permission], asked: int) -> Finding:
    """Whether KFP's own parts of a run's pods could work under the account."""
    if not missing:
        found = (
            f"{account} may do all {asked} things that KFP's driver, launcher and Argo's executor "
            "do in each pod"
        )
        return Finding(check="permissions of KFP", state="ok", found=found)
    return _missing("permissions of KFP", account, missing)


def _missing(check: str, account: str, missing: list[Permission]) -> Finding:
    files = " and ".join(dict.fromkeys(map(granted_by, missing)))
    return Finding(
        check=check,
        state="failed",
        found=f"{account} may not {in_words(missing)}",
        fix=f"{files} grants it: {BIND}",
    )


def retries_finding(defaults: dict[str, object] | None) -> Finding:
    """What KFP's retries are worth here. `defaults`: Argo's templateDefaults; None where there is
    no Argo."""
    check = "KFP's retries"
    if defaults is None:
        return Finding(
            check=check, state="skipped", found="no workflow-controller-configmap of Argo here"
        )
    strategy = defaults.get("retryStrategy")
    if isinstance(strategy, dict):
        policy = strategy.get("retryPolicy", "OnFailure")
    else:
        policy = "OnFailure"
    if policy in ("OnError", "OnTransientError"):
        found = (
            f"retryPolicy {policy}: a pod that is lost is started again, a step that failed is "
            "not, whatever its retries say"
        )
        return Finding(
            check=check,
            state="ok",
            found=f"{found}; steps wait by themselves for store, hub and API server",
        )
    if policy == "Always":
        return Finding(
            check=check,
            state="ok",
            found="retryPolicy Always: a step that failed and a pod that is lost are started again",
        )
    return Finding(
        check=check,
        state="warning",
        found=(
            f"retryPolicy {policy}: a step that failed is started again at once; a pod whose node "
            "is lost is not, and ends the run"
        ),
        fix=(
            "set templateDefaults.retryStrategy to {limit: '2', retryPolicy: OnError} in "
            "workflow-controller-configmap, as KFP 2.17 does"
        ),
    )


def excess_finding(account: str, beyond: list[str], elsewhere: list[str]) -> Finding:
    """`elsewhere`: what it may in other namespaces. What KFP's own accounts may is KFP's to say."""
    words = [*elsewhere, *beyond]
    if account in KFP_ACCOUNTS:
        found = f"{account} is KFP's own account: KFP and its admins choose what else it may"
        return Finding(check="no more than that", state="ok", found=found)
    if not words:
        found = (
            f"{account} may nothing else in its namespace, and elsewhere neither read secrets nor "
            "start pods or jobs"
        )
        return Finding(check="no more than that", state="ok", found=found)
    return Finding(
        check="no more than that",
        state="warning",
        found=f"{account} may also {shortened(words)}",
        fix=(
            "neither hagane nor KFP needs it: look for bindings that name this account or its "
            "groups, and give it a namespace of its own"
        ),
    )


def account_finding(check: str, name: str, namespace: str, *, there: bool) -> Finding:
    if there:
        return Finding(check=check, state="ok", found=f"{name} is there")
    return Finding(
        check=check,
        state="failed",
        found=f"no ServiceAccount {name} in namespace {namespace}",
        fix="kubectl apply -k k8s/overlays/<yours>",
    )


def image_finding(image: str, probed: Probed) -> Finding | None:
    """None where the pod never came as far as that."""
    if probed.stage == "no image":
        return Finding(
            check="image",
            state="failed",
            found=f"{image}: {probed.detail}",
            fix=(
                "check images/images.yaml, push it where nodes can pull (`make push`), or give "
                "the workers' account imagePullSecrets"
            ),
        )
    if probed.stage in ("ran", "unheard"):
        return Finding(check="image", state="ok", found=f"{image} is pulled and starts")
    return None


CONTROLLERS = {
    "PyTorchJob": (
        "look whether Kubeflow's training operator runs: kubectl -n kubeflow get deploy "
        "training-operator"
    ),
    "TrainJob": (
        "look whether Trainer and JobSet run: kubectl get deploy -A | grep -E 'trainer|jobset'"
    ),
}


def pod_finding(probed: Probed, account: str, kind: str = "PyTorchJob") -> Finding:
    """Whether a pod like the workers' is made and runs."""
    fixes = {
        "refused": "see the message; a quota, an admission policy or a permission refuses it",
        "no pod": CONTROLLERS[kind],
        "no node": (
            "fix cluster.node_selector, cluster.tolerations, cluster.affinity or cluster.claims, "
            "or add nodes"
        ),
        "not started": (
            "see the message: a volume, a security policy, or an image that is not hagane's"
        ),
    }
    if probed.stage == "unheard":
        return Finding(
            check="worker pod",
            state="failed",
            found=f"ran as {account}, but its log could not be read; nothing is known of its store",
            fix=(
                "try again; if it stays so, look whether `kubectl logs` reads pods of its node: "
                "the launcher reads the workers' logs too"
            ),
        )
    if probed.stage in ("ran", "no image"):
        state: State = "ok" if probed.stage == "ran" else "warning"
        if state == "ok":
            found = f"a small pod ran as {account}, made as the workers' are"
        else:
            found = "was made, but has no image to run"
        return Finding(
            check="worker pod", state=state, found=found, fix="" if state == "ok" else "see image"
        )
    if probed.stage == "no pod" and f'serviceaccount "{account}" not found' in probed.detail:
        fixes["no pod"] = NO_ACCOUNT
    elif probed.stage == "no pod" and probed.detail:
        fixes["no pod"] = fixes["refused"]
    found = {
        "refused": "refused",
        "no pod": "no pod was made",
        "no node": "no node takes it",
        "not started": "does not start",
    }[probed.stage]
    return Finding(
        check="worker pod",
        state="failed",
        found=f"{found}: {probed.detail or 'no more is known'}",
        fix=fixes[probed.stage],
    )


def source_findings(sources: Sources, probed: Probed, namespace: str) -> list[Finding]:
    """Whether ConfigMaps and Secrets are there. One that is not is passed over by the workers too:
    a failure only if the store fails."""
    if probed.stage != "ran":
        return []
    findings: list[Finding] = []
    for prefix, entry in sources.by_prefix().items():
        if "secretRef" in entry:
            kind, name = ("Secret", entry["secretRef"]["name"])
        else:
            kind, name = ("ConfigMap", entry["configMapRef"]["name"])
        names = probed.environment.get(prefix, ())
        if names:
            findings.append(
                Finding(check=f"{kind} {name}", state="ok", found=f"sets {', '.join(names)}")
            )
            continue
        needed = kind == "Secret" and probed.store is None and bool(probed.problems)
        make = (
            f"kubectl -n {namespace} create {kind.lower()} "
            f"{'generic ' if kind == 'Secret' else ''}{name} --from-literal=…"
        )
        if probed.store is not None:
            reached = "; the store was reached without it"
        else:
            reached = ""
        if kind == "Secret":
            listed = "cluster.secrets"
        else:
            listed = "cluster.config_maps"
        findings.append(
            Finding(
                check=f"{kind} {name}",
                state="failed" if needed else "warning",
                found=f"is not in namespace {namespace}, or sets nothing{reached}",
                fix=f"{make}, or name another in {listed}"
                if needed
                else f"take it out of {listed} if that is meant",
            )
        )
    return findings


def store_findings(store: str, sources: Sources, probed: Probed, namespace: str) -> list[Finding]:
    if probed.stage != "ran":
        return []
    if probed.problems:
        found, _, fix = probed.problems[0].partition("; ")
        origin = ", ".join(
            [
                *(f"ConfigMap {name}" for name in sources.config_maps),
                *(f"Secret {name}" for name in sources.secrets),
            ]
        )
        if "AWS_" in fix:
            where = f"; the workers' environment comes from {origin} in namespace {namespace}"
        else:
            where = ""
        return [Finding(check="store", state="failed", found=found, fix=fix + where)]
    if probed.store is None:
        return []
    findings = [
        Finding(
            check="store",
            state="ok",
            found=f"put, get, list, delete and multipart under {store} work from the pod",
        )
    ]
    if not probed.store["if_absent"]:
        findings.append(
            Finding(
                check="store's writers",
                state="warning",
                found="the server passes over If-None-Match: two runs of one name would mix",
                fix=(
                    "use a server that honours it (AWS S3, MinIO, SeaweedFS), or never start a "
                    "run twice at once"
                ),
            )
        )
    return findings


def queue_finding(
    name: str, namespace: str, queue: dict[str, object] | None, conditions: list[dict[str, str]]
) -> Finding:
    """Kueue's LocalQueue; `conditions` are those of its status."""
    if queue is None:
        return Finding(
            check="Kueue queue",
            state="failed",
            found=f"no LocalQueue {name} in namespace {namespace}",
            fix="make one as in k8s/examples/kueue.yaml, or name another in cluster.queue",
        )
    active = next((each for each in conditions if each["type"] == "Active"), None)
    if active is not None and active["status"] != "True":
        return Finding(
            check="Kueue queue",
            state="failed",
            found=(
                f"LocalQueue {name} admits nothing: {active.get('message') or active.get('reason')}"
            ),
            fix="fix its ClusterQueue: kubectl get clusterqueue",
        )
    return Finding(
        check="Kueue queue",
        state="ok",
        found=f"LocalQueue {name} is there" + (" and active" if active else ""),
    )
