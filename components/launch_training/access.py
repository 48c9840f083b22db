"""What a launcher has to be allowed in its namespace, and what of an account's rules goes beyond that."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from components.launch_training.kinds import PYTORCHJOB, TRAINJOB, JobKind


@dataclass(frozen=True, order=True)
class Permission:
    verb: str
    group: str
    """"" for the core group."""
    resource: str
    """With its subresource, such as `pods/log`."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{self.group and f'.{self.group}'}"


JOB_VERBS = ("create", "get", "list", "watch", "patch", "delete")


def needed(kind: JobKind) -> tuple[Permission, ...]:
    """All that the launcher asks of the API server: for PyTorchJobs, k8s/base/launcher-role.yaml grants just this."""
    return (
        *(Permission(verb, kind.group, kind.plural) for verb in JOB_VERBS),
        *(Permission(verb, "", resource) for resource in ("pods", "events") for verb in ("list", "watch")),
        Permission("get", "", "pods/log"),
    )


OF_QUEUES = (Permission("list", "kueue.x-k8s.io", "workloads"),)
"""By which the launcher knows why a job waits in its queue. Without it the job is followed all the same."""


def shipped() -> tuple[Permission, ...]:
    """All that the Roles of k8s/base and k8s/overlays/trainjob grant."""
    return tuple(dict.fromkeys((*needed(PYTORCHJOB), *needed(TRAINJOB), *OF_QUEUES)))


TOO_MUCH = (Permission("get", "", "secrets"), Permission("create", "", "pods"), Permission("create", PYTORCHJOB.group, PYTORCHJOB.plural))
"""What is asked about other namespaces: an account that may one of these there was given a ClusterRole by mistake."""
EVERYONES = ("authorization.k8s.io", "authentication.k8s.io")
"""Groups of the questions about itself that every account may ask (system:basic-user)."""


def beyond(rules: Iterable[dict[str, Any]], wanted: Iterable[Permission]) -> list[str]:
    """What rules (a SelfSubjectRulesReview's resourceRules) grant that is not wanted, in words, each once."""
    wanted = set(wanted)
    granted: set[str] = set()
    for rule in rules:
        only = f" ({', '.join(rule['resourceNames'])})" if rule.get("resourceNames") else ""
        for group in set(rule.get("apiGroups") or [""]).difference(EVERYONES):
            each = {Permission(verb, group, resource) for resource in rule.get("resources") or [] for verb in rule.get("verbs") or []}
            granted |= {f"{permission}{only}" for permission in each - wanted}
    return sorted(granted)


def refusals(missing: Iterable[Permission], namespace: str) -> list[str]:
    """A line for each permission that a launcher would come to need."""
    return [
        f"cluster: may not {each} in namespace {namespace}: not allowed (403); the launcher's account needs the Role of "
        + ("k8s/overlays/trainjob" if each.group == TRAINJOB.group else "k8s/base")
        for each in missing
    ]


def in_words(permissions: Iterable[Permission]) -> str:
    """`create, get pytorchjobs.kubeflow.org; get pods/log`: verbs of each resource together."""
    verbs: dict[str, list[str]] = {}
    for each in permissions:
        verbs.setdefault(str(each).partition(" ")[2], []).append(each.verb)
    return "; ".join(f"{', '.join(those)} {resource}" for resource, those in verbs.items())


def shortened(words: list[str], most: int = 8) -> str:
    more = len(words) - most
    return ", ".join(words) if more <= 0 else f"{', '.join(words[:most])} and {more} more"
