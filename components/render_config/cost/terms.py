"""One term of a memory plan, and how terms are added up by kind."""

from components.shared.documents.plan import MemoryTerm

# Kinds of memory, as the figure of the ZeRO paper has them (arXiv 1910.02054, figure 1), with
# activations and the rest beside.
KINDS = {
    "weights": (
        "weights",
        "gathered layers",
        "gathering the largest weight",
        "loading the weights",
        "start-up beyond the above",
        "updated weights for the GPU",
        "gathering updated weights",
        "experts' weights with their update",
        "weights with their update",
        "weights turned back from 4 bits",
        "loading the whole model in 4 bits",
    ),
    "gradients": (
        "gradients",
        "fp32 gradients",
        "fp32 gradients at the step",
        "gradients from the GPU",
        "reducing gradients",
        "communication buckets",
    ),
    "optimizer state": ("optimizer state", "fp32 weights", "saving a checkpoint", "resuming"),
    "activations": (
        "activations",
        "attention masks",
        "loss or backward pass",
        "heap between activations",
        "heap between weights",
    ),
    "all else": ("CUDA context and NCCL", "libraries and interpreter", "shared memory"),
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


def term(name: str, num_bytes: float, formula: str, source: str) -> MemoryTerm:
    return MemoryTerm(name=name, num_bytes=round(num_bytes), formula=formula, source=source)


def by_kind(terms: tuple[MemoryTerm, ...]) -> dict[str, int]:
    """Bytes of each of KINDS that there is."""
    totals = dict.fromkeys(KINDS, 0)
    for each in terms:
        totals[KIND_OF[each.name]] += each.num_bytes
    return {kind: num_bytes for kind, num_bytes in totals.items() if num_bytes}
