"""What the component.py files share: the image of a component, and handing a finished folder's
manifest to KFP."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Protocol

from components.shared.store.manifest import Manifest
from components.shared.store.storage import open_store


class Metrics(Protocol):
    """KFP's artifact of numbers, as much of it as is used here."""

    @property
    def path(self) -> str: ...

    @property
    def log_metric(self) -> Callable[[str, float], None]: ...


@cache
def image(component: str) -> str:
    """Full name of the component's image, from images/images.yaml."""
    from components.shared.job.images import read_images  # a step that runs asks for none

    return read_images().of(component)


def image_on_gpus() -> str:
    """Full name of the workers' image where the plan has GPUs; empty where there is none."""
    from components.shared.job.images import read_images

    images = read_images()
    if images.for_gpus:
        return images.training(on_gpus=True)
    return ""


def hand_over(
    manifest: Manifest, *, run: str, manifest_path: str, pages: dict[str, str] | None = None
) -> str:
    """KFP has the manifest, and those files of the folder that it shows (name in the folder ->
    path). Returns the digest.

    The digest is a step's output parameter: it orders the steps, and stands for all that the folder
    was made from.
    """
    Path(manifest_path).write_bytes(manifest.to_bytes())
    store = open_store(run)
    for name, path in (pages or {}).items():
        Path(path).write_bytes(store.read_bytes(f"{manifest.folder}/{name}"))
    return manifest.digest


def tell_numbers(metrics: Metrics, numbers: Mapping[str, float | None]) -> None:
    """KFP shows the numbers beside the run; one that is None is left out.

    They are written as a file too: kfp.local takes a step whose artifacts are not there for one
    that was never done.
    """
    known = {name: float(value) for name, value in numbers.items() if value is not None}
    for name, value in known.items():
        metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(known, indent=1) + "\n")
