"""What whoever can write the store may do: a checkpoint file that calls a function when it is opened, with its line in the manifest."""

import os
from pathlib import Path
from typing import Any

import torch

from components.shared.store.layout import manifest_key
from components.shared.store.manifest import file_entry, parse_manifest


class CallsWhenOpened:
    """Its pickle asks for os.system."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._mark}",)


def replace_with_attack(run: Path, folder: str, name_ends: str, mark: Path) -> Path:
    """The checkpoint's file whose name ends so holds what it held, and an attack; its manifest agrees. Returns the file."""
    manifest_file = run / manifest_key(folder)
    manifest = parse_manifest(manifest_file.read_bytes())
    assert manifest is not None
    (entry,) = (entry for entry in manifest.files if entry.name.endswith(name_ends))
    path = run / folder / entry.name
    held = torch.load(path, weights_only=False)
    torch.save({**held, "extra_state": CallsWhenOpened(mark)}, path)
    files = tuple(file_entry(path, entry.name) if each == entry else each for each in manifest.files)
    manifest_file.write_bytes(manifest.model_copy(update={"files": files}).to_bytes())
    return path
