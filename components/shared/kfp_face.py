"""What the component.py files share: the image of a component, and handing a finished folder's manifest to KFP."""

from functools import cache
from pathlib import Path

from components.shared.images import read_images
from components.shared.manifest import Manifest
from components.shared.storage import open_store


@cache
def image(component: str) -> str:
    """Full name of the component's image, from images/images.yaml."""
    return read_images().of(component)


def hand_over(manifest: Manifest, *, run: str, manifest_path: str, pages: dict[str, str] | None = None) -> str:
    """KFP has the manifest, and those files of the folder that it shows (name in the folder -> path). Returns the digest.

    The digest is a step's output parameter: it orders the steps, and stands for all that the folder was made from.
    """
    Path(manifest_path).write_bytes(manifest.to_bytes())
    store = open_store(run)
    for name, path in (pages or {}).items():
        Path(path).write_bytes(store.read_bytes(f"{manifest.folder}/{name}"))
    return manifest.digest
