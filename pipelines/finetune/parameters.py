"""The parameters that a run of the pipeline is given: what cannot be in them."""

from collections.abc import Iterator, Mapping
from typing import Any

BRACES = "{{"
"""Argo Workflows reads `{{…}}` in a workflow's arguments as its own (docs/variables.md there): KFP
hands parameters to it as they are, so that `{{workflow.uid}}` is replaced, `{{=1+1}}` evaluated,
and `{{inputs.x}}` refused as the run is created."""


def parameter_problems(parameters: Mapping[str, Any], *, where: str = "") -> list[str]:
    """A line for each text or key of a run's parameters that Argo Workflows would take for a
    variable of its own."""
    return [
        f"{name}: found {text[:80]!r}, allowed text without {BRACES!r}, which Argo Workflows would "
        "replace in a cluster. Fix: put a space between the two braces"
        for name, text in texts_of(parameters, where)
        if BRACES in text
    ]


def texts_of(tree: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text and every key of a tree, with its path: `evaluation.questions.0`."""
    if isinstance(tree, str):
        yield where, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            if where:
                path = f"{where}.{key}"
            else:
                path = str(key)
            yield path, str(key)
            yield from texts_of(value, path)
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from texts_of(value, f"{where}.{index}")
