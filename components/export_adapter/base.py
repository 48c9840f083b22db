"""The base model of an export, named so that it can be found again anywhere -> base.json."""

import hashlib
from pathlib import Path

from components.shared.documents.plan import ModelPlan, Plan
from components.shared.documents.results import BaseModel
from components.shared.store.manifest import file_entry

BASE = "base.json"
_DIGESTED = ("config.json", "*.safetensors", "tokenizer.json")


def base_model(plan: Plan, folder: Path) -> BaseModel:
    """Hub id and commit; of a folder its name and the digest of its files, all of which are
    read."""
    quantized_from = None
    if plan.model.quantization == "nf4":
        quantized_from = plan.precision
    if plan.model.revision is not None:
        return BaseModel(
            hub_id=plan.model.source, commit=plan.model.revision, quantized_from=quantized_from
        )
    return BaseModel(
        folder=folder.absolute().name, sha256=folder_digest(folder), quantized_from=quantized_from
    )


def adapters_base(planned: ModelPlan, folder: Path) -> str:
    """What adapter_config.json names: the hub id, or the folder by its whole path on this
    machine."""
    if planned.revision is not None:
        return planned.source
    return str(folder.absolute())


def folder_digest(folder: Path) -> str:
    """What `sha256sum config.json *.safetensors tokenizer.json | sha256sum` prints in the folder
    (LC_ALL=C)."""
    paths = [path for pattern in _DIGESTED for path in sorted(folder.glob(pattern))]
    lines = [f"{file_entry(path, path.name).sha256}  {path.name}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
