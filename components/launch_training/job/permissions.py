"""What a launcher has to be allowed in its namespace, and what of an account's rules goes beyond
that."""

from collections.abc import Iterable
from typing import Any

from components.launch_training.job.kinds import KINDS, PYTORCHJOB, TRAINJOB, JobKind
from components.shared.job.permissions import OF_QUEUES, Permission, launcher_permissions


def needed(kind: JobKind) -> tuple[Permission, ...]:
    """All that the launcher asks of the API server: for PyTorchJobs, k8s/base/launcher-role.yaml
    grants just this."""
    (backend,) = [name for name, each in KINDS.items() if each is kind]
    return launcher_permissions(backend)


def shipped() -> tuple[Permission, ...]:
    """All that the Role of k8s/base grants."""
    return tuple(dict.fromkeys((*needed(PYTORCHJOB), *needed(TRAINJOB), *OF_QUEUES)))


TOO_MUCH = (
    Permission("get", "", "secrets"),
    Permission("create", "", "pods"),
    Permission("create", PYTORCHJOB.group, PYTORCHJOB.plural),
)
"""What is asked about other namespaces: an account that may one of these there was given a
ClusterRole by mistake."""
EVERYONES = ("authorization.k8s.io", "authentication.k8s.io")
"""Groups of the questions about itself that every account may ask (system:basic-user)."""
PUBLIC_CONFIG_MAP = "kubeflow-pipelines-public"
"""Which KFP lets every account of the cluster read
(manifests/kustomize/base/pipeline/public_configmap_role.yaml)."""
KFP_ACCOUNTS = ("pipeline-runner", "default-editor")
"""Accounts that KFP makes for the pods of runs, with rights of its own choosing: for a single user,
and in a user's profile."""


def beyond(rules: Iterable[dict[str, Any]], wanted: Iterable[Permission]) -> list[str]:
    """What rules (a SelfSubjectRulesReview's resourceRules) grant that is not wanted, in words,
    each once."""
    wanted = set(wanted)
    return sorted({str(each) for rule in rules for each in _granted(rule) if each not in wanted})


def _granted(rule: dict[str, Any]) -> Iterable[Permission]:
    names = rule.get("resourceNames") or [""]
    if names == [PUBLIC_CONFIG_MAP]:
        return
    for group in set(rule.get("apiGroups") or [""]).difference(EVERYONES):
        for resource in rule.get("resources") or []:
            for verb in rule.get("verbs") or []:
                yield from (Permission(verb, group, resource, name) for name in names)


def in_words(permissions: Iterable[Permission]) -> str:
    """`create, get pytorchjobs.kubeflow.org; get pods/log`: verbs of each resource together."""
    verbs: dict[str, list[str]] = {}
    for each in permissions:
        verbs.setdefault(str(each).partition(" ")[2], []).append(each.verb)
    return "; ".join(f"{', '.join(those)} {resource}" for resource, those in verbs.items())


def shortened(words: list[str], most: int = 8) -> str:
    more = len(words) - most
    if more <= 0:
        return ", ".join(words)
    return f"{', '.join(words[:most])} and {more} more"
