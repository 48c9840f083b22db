"""lineage.json of a published version: what it was made from, down to the data and the code."""

from typing import Literal

from components.shared.code_version import CodeVersion, code_version
from components.shared.documents.fields import FrozenModel
from components.shared.documents.results import BaseModel
from components.shared.errors import RunFailed
from components.shared.spec.run_spec import RunSpec
from components.shared.spec.values import name_elsewhere
from components.shared.store.checkpoints import committed_checkpoints
from components.shared.store.layout import CHECKPOINTS, DATASET, EVALUATION, PLAN
from components.shared.store.manifest import Manifest, require_manifest
from components.shared.store.series import asked_of
from components.shared.store.storage import Store


class MadeFrom(FrozenModel):
    """A finished folder of the run."""

    folder: str
    manifest_sha256: str
    inputs: dict[str, str]
    """Name -> sha256, or digest of another manifest, as the folder's own manifest has them."""


class FromCheckpoint(FrozenModel):
    folder: str
    epoch: int | None
    step: int
    manifest_sha256: str


class Lineage(FrozenModel):
    schema_version: Literal[1] = 1
    name: str
    version: int
    run: str
    """URI of the run's folder; of one on a machine's disk its name alone."""
    spec_sha256: str
    """Of the spec with every default filled in: spec.yaml beside this file has it whole."""
    base: BaseModel
    dataset: MadeFrom
    plan: MadeFrom
    training: MadeFrom
    checkpoint: FromCheckpoint
    export: MadeFrom
    evaluation: MadeFrom
    code: CodeVersion
    """That published it."""
    images: tuple[str, ...]
    """Names, with digests where the pipeline pins them; none for a run that did not run in
    images."""
    kfp_run: str | None
    """KFP's id of the run; None where KFP did not start it."""


def lineage_of(
    run: Store, spec: RunSpec, export: Manifest, *, name: str, version: int, base: BaseModel
) -> Lineage:
    """Raises RunFailed where the checkpoint that was exported is no longer there, StoreError where
    a folder is not finished."""
    asked, code = asked_of(run), code_version()
    dataset, plan, training, evaluation = (
        require_manifest(run, folder) for folder in (DATASET, PLAN, CHECKPOINTS, EVALUATION)
    )
    return Lineage(
        name=name,
        version=version,
        run=name_elsewhere(run.uri),
        spec_sha256=spec.digest,
        base=base,
        dataset=_made_from(dataset),
        plan=_made_from(plan),
        training=_made_from(training),
        checkpoint=_checkpoint(run, export),
        export=_made_from(export),
        evaluation=_made_from(evaluation),
        code=code,
        images=tuple(asked.images.split()) if asked is not None and code.in_image else (),
        kfp_run=None if asked is None else asked.kfp_run or None,
    )


def _made_from(manifest: Manifest) -> MadeFrom:
    return MadeFrom(folder=manifest.folder, manifest_sha256=manifest.digest, inputs=manifest.inputs)


def _checkpoint(run: Store, export: Manifest) -> FromCheckpoint:
    step = export.facts.get("step")
    exported = [each for each in committed_checkpoints(run) if each.step == step]
    if not exported:
        raise RunFailed(
            f"{run.uri}/{CHECKPOINTS}: the checkpoint of step {step}, which was exported, is not "
            "there; restore it"
        )
    found = exported[-1]
    return FromCheckpoint(
        folder=found.folder,
        epoch=found.epoch,
        step=found.step,
        manifest_sha256=found.manifest.digest,
    )
