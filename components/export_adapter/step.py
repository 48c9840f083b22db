"""checkpoints/ -> adapter/ or model/, published.

Whether it is there already is known before torch and peft are imported, which takes 4 s.
"""

import shutil
from pathlib import Path

from components.export_adapter.chosen import chosen_checkpoint
from components.export_adapter.weights.merge_decision import MergeDecision, merge_decision
from components.shared.documents.plan import Plan
from components.shared.documents.results import Verification
from components.shared.model.uncompiled import import_uncompiled
from components.shared.step import Log, finished, open_run, work_folder
from components.shared.store.checkpoints import Checkpoint
from components.shared.store.layout import CHECKPOINTS, MERGED, PLAN, export_folder
from components.shared.store.manifest import (
    Manifest,
    Scalar,
    fetch_folder,
    publish_folder,
    require_manifest,
)
from components.shared.store.storage import Store


def export_run(run: str, log: Log) -> Manifest:
    """adapter/ or model/ is published; unchanged when it was made from this checkpoint already.
    Raises as `run_step`."""
    store, spec = open_run(run)
    training = require_manifest(store, CHECKPOINTS)
    checkpoint = chosen_checkpoint(store, training, spec.export.checkpoint)
    work = work_folder(run, "export_adapter")
    plan = fetch_plan(store, work)
    inputs = inputs_of(training, checkpoint, merge_decision(spec.export, plan))
    done = finished(store, export_folder(spec.training.method), inputs, log)
    if done is not None:
        return done
    import torch

    import_uncompiled("bitsandbytes", torch)  # before peft imports it
    from components.export_adapter.export import build, gather

    trained = gather(store, spec, plan, checkpoint, work, training=training, place=store.uri)
    built = build(trained, work, log)
    facts = {"method": plan.method, "epoch": checkpoint.epoch, "step": checkpoint.step}
    if built.merged is not None and built.merged_verification is not None:
        of_merged = facts | _figures(built.merged_verification)
        publish_folder(
            store, MERGED, built.merged, made_by="export_adapter", inputs=inputs, facts=of_merged
        )
    of_export = facts | _figures(built.verification)
    published = publish_folder(
        store,
        built.local.name,
        built.local,
        made_by="export_adapter",
        inputs=inputs,
        facts=of_export,
    )
    shutil.rmtree(work)  # shards of a full model are 12 bytes a parameter
    return published


def inputs_of(training: Manifest, checkpoint: Checkpoint, merges: MergeDecision) -> dict[str, str]:
    """What the export follows from."""
    inputs = {"checkpoints": training.digest}
    if checkpoint.epoch != training.facts["num_epochs"]:
        inputs["checkpoint"] = checkpoint.manifest.digest
    return inputs | ({"merge": "true"} if merges.merges else {})


def fetch_plan(store: Store, work: Path) -> Plan:
    """The run's plan, checked; a copy is below `work`."""
    fetch_folder(store, PLAN, work / PLAN, names=("plan.json",))
    return Plan.model_validate_json((work / PLAN / "plan.json").read_bytes())


def _figures(verification: Verification) -> dict[str, Scalar]:
    return {"max_difference": verification.exported.max, "tolerance": verification.tolerance_max}
