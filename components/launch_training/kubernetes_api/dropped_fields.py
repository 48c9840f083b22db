"""A manifest, and what an API server would keep of it -> the fields that it drops, each with whose
field it is."""

from collections.abc import Iterator
from typing import Any

from components.launch_training.job.kinds import TRAINJOB, JobKind
from components.shared.spec.cluster import ClusterSpec

Place = tuple[str | int, ...]
POD_TEMPLATES = (
    ("spec", "pytorchReplicaSpecs", None, "template"),
    (
        "spec",
        "runtimePatches",
        None,
        "trainingRuntimeSpec",
        "template",
        "spec",
        "replicatedJobs",
        None,
        "template",
        "spec",
        "template",
    ),
)
"""Where a job holds the template of its pods; None stands for any key or number."""


def dropped(sent: Any, kept: Any, where: Place = ()) -> Iterator[Place]:
    """Places of what was sent and is not kept: an API server removes fields that its schema does
    not know."""
    if isinstance(sent, dict):
        for key, value in sent.items():
            is_kept = isinstance(kept, dict) and key in kept
            if is_kept:
                yield from dropped(value, kept[key], (*where, key))
            elif value not in ({}, []):
                yield (*where, key)
    elif isinstance(sent, list) and isinstance(kept, list):
        for number, (each, its) in enumerate(zip(sent, kept, strict=False)):
            yield from dropped(each, its, (*where, number))


def dropped_problem(place: Place, manifest: Any, kind: JobKind, spec: ClusterSpec) -> str:
    """One line: the field of the spec that brought it, or hagane's own, and what to do."""
    in_pod = _in_pod_template(place)
    shown = in_words(place)
    missing = f"this cluster's {kind.name} has no such field"
    if in_pod is not None and _is_in(spec.pod_patch, manifest, place, in_pod):
        return (
            f"cluster.pod_patch: {in_words(in_pod)}: {missing}. Fix: remove it, or set it in the "
            "job's runtime or a namespace policy"
        )
    if _is_in(spec.patch, manifest, place, place):
        return f"cluster.patch: {shown}: {missing}. Fix: remove it"
    if kind is TRAINJOB:
        other = "; another backend may have it"
    else:
        other = ""
    return f"backend: hagane sets {shown}, but {missing}. Fix: install {kind.installed_by}{other}"


def in_words(place: Place) -> str:
    """`spec.containers[0].image`"""
    words = ""
    for each in place:
        if isinstance(each, int):
            words += f"[{each}]"
        else:
            words += f".{each}"
    return words.removeprefix(".")


def _in_pod_template(place: Place) -> Place | None:
    """The place within the pod's template; None where it is none of a pod."""
    for template in POD_TEMPLATES:
        begins = len(place) > len(template) and all(
            wanted in (None, each) for wanted, each in zip(template, place, strict=False)
        )
        if begins:
            return place[len(template) :]
    return None


def _is_in(patch: Any, manifest: Any, place: Place, rest: Place) -> bool:
    """Whether a patch, whose lists merge by names, brought the field. `rest`: the end of `place`
    that the patch speaks of."""
    found = manifest
    for each in place[: len(place) - len(rest)]:
        found = found[each]
    for each in rest:
        found = found[each]
        if isinstance(patch, dict) and each in patch:
            patch = patch[each]
        elif isinstance(patch, list | tuple) and isinstance(each, int):
            if isinstance(found, dict):
                name = found.get("name")
            else:
                name = None
            by_name = [
                item for item in patch if isinstance(item, dict) and item.get("name") == name
            ]
            if name is not None and by_name:
                patch = by_name[0]
            elif name is None and each < len(patch):
                patch = patch[each]
            else:
                return False
        else:
            return False
    return True
