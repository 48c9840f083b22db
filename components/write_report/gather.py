"""A run's folders in the store -> all that its report tells. Only small files are fetched; of the
others the manifests say enough."""

import json
from dataclasses import dataclass
from pathlib import Path

from components.shared.documents.plan import Plan
from components.shared.documents.results import Evaluation, History, Verification
from components.shared.errors import StoreError
from components.shared.spec.run_spec import RunSpec
from components.shared.store.checkpoints import Checkpoint, committed_checkpoints
from components.shared.store.layout import CHECKPOINTS, DATASET, EVALUATION, PLAN, export_folder
from components.shared.store.manifest import Manifest, fetch_folder
from components.shared.store.storage import Store


@dataclass(frozen=True)
class RunFound:
    uri: str
    spec: RunSpec
    plan: Plan
    history: History
    verification: Verification
    evaluation: Evaluation
    cautions: tuple[str, ...]
    """What prepare_dataset found worth a look in the data."""
    dataset: Manifest
    planned: Manifest
    training: Manifest
    checkpoints: tuple[Checkpoint, ...]
    export: Manifest
    evaluated: Manifest

    @property
    def folders(self) -> tuple[Manifest, ...]:
        """Every finished folder, in the order in which the steps made them."""
        epochs = (checkpoint.manifest for checkpoint in self.checkpoints)
        return (self.dataset, self.planned, *epochs, self.training, self.export, self.evaluated)


def gather(store: Store, spec: RunSpec, *, uri: str, work: Path) -> RunFound:
    """Everything the report tells. Raises StoreError when a folder is not finished or was made
    without the file that is read, ObjectDamaged when a file is not what it was."""
    export = export_folder(spec.training.method)
    names = {
        DATASET: "quality.json",
        PLAN: "plan.json",
        CHECKPOINTS: "history.json",
        export: "verification.json",
        EVALUATION: "evaluation.json",
    }
    manifests = {
        folder: fetch_folder(store, folder, work / folder, names=(name,))
        for folder, name in names.items()
    }
    absent = [
        f"{store.uri}/{folder}: its manifest names no {name}. Fix: start the run again under "
        "another name"
        for folder, name in names.items()
        if not (work / folder / name).is_file()
    ]
    if absent:
        raise StoreError(*absent)
    content = {folder: (work / folder / name).read_bytes() for folder, name in names.items()}
    return RunFound(
        uri=uri,
        spec=spec,
        plan=Plan.model_validate_json(content[PLAN]),
        history=History.model_validate_json(content[CHECKPOINTS]),
        verification=Verification.model_validate_json(content[export]),
        evaluation=Evaluation.model_validate_json(content[EVALUATION]),
        cautions=tuple(json.loads(content[DATASET])["warnings"]),
        dataset=manifests[DATASET],
        planned=manifests[PLAN],
        training=manifests[CHECKPOINTS],
        checkpoints=tuple(committed_checkpoints(store)),
        export=manifests[export],
        evaluated=manifests[EVALUATION],
    )
