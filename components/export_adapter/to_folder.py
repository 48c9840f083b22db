"""A committed checkpoint of a run -> its verified export in a folder of this machine; the run's own
folders stay as they are."""

import shutil
from pathlib import Path

from components.export_adapter.chosen import chosen_checkpoint
from components.export_adapter.export import build, gather
from components.export_adapter.step import fetch_plan
from components.shared.errors import SpecError
from components.shared.spec.results import ExportSpec
from components.shared.step import Log, open_run, work_folder
from components.shared.store.layout import CHECKPOINTS
from components.shared.store.manifest import require_manifest


def export_to(run: str, out: Path, asked: ExportSpec, log: Log) -> list[Path]:
    """`out` holds adapter/ or model/, and merged/ where it is asked for: it appears whole and
    verified, or not at all.

    Raises:
        SpecError: `out` is there already. As `export_run` otherwise.
    """
    if out.exists():
        raise SpecError(f"--out: {out} is there already; name a new folder")
    store, spec = open_run(run)
    spec = spec.model_copy(update={"export": asked})
    training = require_manifest(store, CHECKPOINTS)
    checkpoint = chosen_checkpoint(store, training, asked.checkpoint)
    work = work_folder(run, "export_to_folder")
    trained = gather(
        store,
        spec,
        fetch_plan(store, work),
        checkpoint,
        work,
        training=training,
        place=str(out.resolve()),
    )
    built = build(trained, work, log)
    parts = [built.local, *([built.merged] if built.merged is not None else [])]
    beside = out.with_name(f".{out.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for part in parts:
            shutil.copytree(part, beside / part.name)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(work)
    return [out / part.name for part in parts]
