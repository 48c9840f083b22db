"""base model + export + held-out rows -> evaluation/, the gate, and the published version where the
gate is met.

Whether evaluation/ is there already is known before torch and peft are imported, which takes 4 s.
"""

import hashlib
import json
import shutil
from pathlib import Path

from components.shared.documents.results import Evaluation
from components.shared.errors import RunFailed
from components.shared.model.uncompiled import import_uncompiled
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log, finished, open_run, work_folder
from components.shared.store.layout import EVALUATION, export_folder
from components.shared.store.manifest import Manifest, Scalar, publish_folder, require_manifest
from components.shared.store.published import Move
from components.shared.store.publishing import (
    EVALUATION_FILE,
    NO_GATE,
    compared_version,
    publish_run,
)
from components.shared.store.storage import Store


def evaluate_run(run: str, log: Log) -> Manifest:
    """evaluation/ is published; unchanged when it was made from this export already.

    Then comes the gate, and publishing. Raises as `run_step`.
    """
    store, spec = open_run(run)
    export = require_manifest(store, export_folder(spec.training.method))
    published = compared_version(store, spec, export)
    inputs = inputs_of(export, spec, published)
    work = work_folder(run, "evaluate")
    manifest = finished(store, EVALUATION, inputs, log)
    if manifest is None:
        import torch

        import_uncompiled("bitsandbytes", torch)  # before peft imports it
        from components.evaluate.evaluation import measured

        evaluation = measured(store, spec, export, published, work, log)
        local = work / EVALUATION
        shutil.rmtree(local, ignore_errors=True)
        local.mkdir()
        (local / EVALUATION_FILE).write_text(
            evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8"
        )
        facts = _facts(
            evaluation,
            published,
            compared_name=spec.publish.name if spec.compares_with_published else None,
        )
        manifest = publish_folder(
            store, EVALUATION, local, made_by="evaluate", inputs=inputs, facts=facts
        )
    try:
        gate_or_publish(store, spec, work, log)
    finally:
        shutil.rmtree(work)
    return manifest


def inputs_of(export: Manifest, spec: RunSpec, published: Move | None) -> dict[str, str]:
    """What evaluation/ follows from. Another gate, other benchmarks, or another published version
    that it compares with, is another evaluation."""
    inputs = {"adapter": export.digest}
    if spec.gate != "auto":
        rules: list[object] = [rule.model_dump(mode="json") for rule in spec.gate]
        if spec.compares_with_published:
            rules.append(spec.publish.name)
        inputs["gate"] = hashlib.sha256(json.dumps(rules).encode()).hexdigest()
    if spec.evaluation.lm_eval.tasks:
        benchmarks = spec.evaluation.lm_eval.model_dump_json()
        inputs["lm_eval"] = hashlib.sha256(benchmarks.encode()).hexdigest()
    if published is not None:
        inputs["published"] = published.digest
    return inputs


def gate_or_publish(store: Store, spec: RunSpec, work: Path, log: Log) -> None:
    """The export is published where the spec names a place and the gate is met. Raises RunFailed
    where it is not, and must be."""
    evaluation = Evaluation.model_validate_json(store.read_bytes(f"{EVALUATION}/{EVALUATION_FILE}"))
    if evaluation.gate is None:
        raise RunFailed(f"{EVALUATION}: {NO_GATE}")
    if evaluation.gate.not_met:
        if spec.evaluation.must_improve:
            raise RunFailed(
                *(f"{EVALUATION}: {line}. Fix: {_FIX}" for line in evaluation.gate.not_met)
            )
        log.warning("gate_not_met", published=False, rules=evaluation.gate.not_met)
    elif spec.publish.name is not None:
        move = publish_run(store, spec, name=spec.publish.name, work=work)
        if move is not None:
            log.info("published", version=f"{move.name} v{move.version}", at=move.uri)


_FIX = (
    "begin another run with other data or settings, or change gate in the spec and run it again: "
    "the training stays"
)


def _facts(
    evaluation: Evaluation, published: Move | None, *, compared_name: str | None
) -> dict[str, Scalar]:
    """`published_move`: which version was the latest when a rule compared with it, so that no other
    is replaced unseen, nor one of another name than `published_name`."""
    assert evaluation.gate is not None
    base, tuned = evaluation.base, evaluation.tuned
    facts: dict[str, Scalar] = {
        "base_loss": None if base is None else base.loss,
        "tuned_loss": None if tuned is None else tuned.loss,
        "num_tokens": 0 if base is None else base.num_tokens,
        "improved": evaluation.improved,
        "gate_met": evaluation.gate.met,
    }
    if compared_name is not None:
        facts |= {
            "published_name": compared_name,
            "published_move": 0 if published is None else published.number,
        }
    return facts
