"""What tables show -> JSON for programs: the same facts under names, numbers as numbers."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from components.shared.documents.findings import Finding
from components.shared.documents.progress import TrainingProgress
from components.shared.errors import ObjectMissing
from components.shared.model.registry import ModelFamily
from components.shared.spec.results import KeepSpec
from components.shared.spec.run_spec import RunSpec
from components.shared.store.checkpoints import committed_checkpoints, reasons_to_keep
from components.shared.store.layout import PROGRESS, finished_folders
from components.shared.store.manifest import read_manifest
from components.shared.store.published import Version
from components.shared.store.storage import Store
from pipelines.checkpoints.listing import not_committed


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=1, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")


def status_json(store: Store, spec: RunSpec) -> dict[str, Any]:
    """A run's folders, finished or not, its checkpoints, and how far its training in a cluster
    is."""
    manifests = {
        name: read_manifest(store, name) for name in finished_folders(spec.training.method)
    }
    folders = [
        {
            "folder": name,
            "finished": found is not None,
            "facts": {} if found is None else found.facts,
        }
        for name, found in manifests.items()
    ]
    checkpoints = checkpoints_json(store, spec.checkpoints.keep)
    return {
        "run": spec.name,
        "uri": store.uri,
        "folders": folders,
        "checkpoints": checkpoints,
        "training": _progress(store),
    }


def _progress(store: Store) -> dict[str, Any] | None:
    try:
        progress = TrainingProgress.model_validate_json(store.read_bytes(PROGRESS))
    except ObjectMissing:
        return None
    return progress.model_dump(mode="json", exclude_none=True)


def checkpoints_json(store: Store, keep: KeepSpec) -> list[dict[str, Any]]:
    committed = committed_checkpoints(store)
    why = reasons_to_keep(committed, keep)
    whole = [
        {
            "folder": each.folder,
            "epoch": each.epoch,
            "step": each.step,
            "num_bytes": each.num_bytes,
            "loss": each.facts.loss,
            "held_out_loss": each.held_out_loss,
            "committed": True,
            "kept_because": why.get(each.folder),
        }
        for each in committed
    ]
    left = [
        {
            "folder": each.folder,
            "num_bytes": each.num_bytes,
            "committed": False,
            "found": each.found,
        }
        for each in not_committed(store, committed)
    ]
    return whole + left


def models_json(families: Iterable[ModelFamily]) -> list[dict[str, Any]]:
    return [family.model_dump(mode="json") for family in families]


def findings_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [finding.model_dump(mode="json", exclude_none=True) for finding in findings]


def versions_json(versions: Iterable[Version], *, store_uri: str) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "version": each.number,
            "latest": each.is_latest,
            "was_latest": each.was_latest,
            "uri": f"{store_uri}/{each.manifest.folder}",
            "written": each.written,
            **each.manifest.facts,
        }
        for each in versions
    ]
