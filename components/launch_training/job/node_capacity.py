"""Nodes and a pod that is to run on them -> whether they have the room, and what keeps the others
out.

Compared with all that a node can give, not against what is free now: a queue or the scheduler waits
for that.
"""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from components.shared.documents.findings import Finding

Fields = dict[str, Any]
GIB = 2**30


@dataclass(frozen=True)
class NodeFacts:
    name: str
    allocatable: dict[str, Decimal]
    """Resource -> how much pods may take of it in all, in its base unit."""
    labels: dict[str, str]
    taints: tuple[Fields, ...]
    cordoned: bool


def node_finding(
    nodes: list[NodeFacts], needs: dict[str, Decimal], num_pods: int, pod: Fields
) -> Finding:
    """`needs`: resource -> what one pod asks for. `pod`: its spec, for selector and tolerations."""
    places, reasons = 0, Counter[str]()
    for node in nodes:
        why = why_not(node, needs, pod)
        if why is None:
            places += min(
                (int(node.allocatable[name] / amount) for name, amount in needs.items() if amount),
                default=num_pods,
            )
        else:
            reasons[why] += 1
    asked = f"{num_pods} {'pod' if num_pods == 1 else 'pods'} of {amounts(needs)}"
    if places >= num_pods:
        if pod.get("affinity"):
            beside = "; cluster.affinity was not looked at"
        else:
            beside = ""
        return Finding(
            check="nodes",
            state="ok",
            found=f"room for {asked}, on nodes without other work{beside}",
        )
    found = f"{asked}, but the cluster's nodes ({len(nodes)}) have room for {places}"
    if reasons:
        found += ": " + ", ".join(f"{number} {why}" for why, number in reasons.most_common())
    return Finding(check="nodes", state="failed", found=found, fix=_fix(reasons, needs))


def why_not(node: NodeFacts, needs: dict[str, Decimal], pod: Fields) -> str | None:
    """What keeps the pod off the node; None where nothing does."""
    selector = pod.get("nodeSelector", {})
    if any(node.labels.get(key) != value for key, value in selector.items()):
        return f"without label {', '.join(f'{key}={value}' for key, value in selector.items())}"
    for name, amount in needs.items():
        has = node.allocatable.get(name, Decimal(0))
        if has < amount:
            if not has:
                return f"without {name}"
            return f"with {amounts({name: has})} only"
    for taint in node.taints:
        if taint["effect"] != "PreferNoSchedule" and not any(
            _bears(each, taint) for each in pod.get("tolerations", [])
        ):
            return f"with taint {taint['key']}={taint.get('value', '')}:{taint['effect']}"
    if node.cordoned:
        return "cordoned"
    return None


def _bears(toleration: Fields, taint: Fields) -> bool:
    """Kubernetes' rule: no key bears every key, no effect every effect, Exists every value."""
    same_key = not toleration.get("key") or toleration["key"] == taint["key"]
    same_effect = not toleration.get("effect") or toleration["effect"] == taint["effect"]
    same_value = toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get(
        "value", ""
    )
    return same_key and same_effect and same_value


def amounts(needs: dict[str, Decimal]) -> str:
    """`8 nvidia.com/gpu, 173.1 GiB memory`."""
    bytes_of = ("memory", "ephemeral-storage")
    return ", ".join(
        f"{amount / GIB:.1f} GiB {name}" if name in bytes_of else f"{amount:f} {name}"
        for name, amount in needs.items()
    )


def _fix(reasons: Counter[str], needs: dict[str, Decimal]) -> str:
    if reasons:
        why = reasons.most_common(1)[0][0]
    else:
        why = ""
    gpu = next((name for name in needs if "/" in name), None)
    if gpu is not None and any(each == f"without {gpu}" for each in reasons):
        return (
            "add GPU nodes and their device plugin, or name it in cluster.gpu_resource (a node "
            "group that grows from none is not seen)"
        )
    if "label" in why:
        return "fix cluster.node_selector, or label nodes"
    if "taint" in why:
        return "bear the taint in cluster.tolerations"
    if why == "cordoned":
        return "kubectl uncordon the nodes"
    return (
        "take larger or more nodes, or have `hagane plan` find another way: fewer "
        "processes_per_node, offload, shorter rows"
    )
