"""The last committed checkpoint of a run -> its export, verified in a fresh process before anything is published."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from components.export_adapter.adapter import write_adapter
from components.export_adapter.card import CardFacts, model_card
from components.shared.checkpoints import Checkpoint, committed_checkpoints
from components.shared.errors import ModelError, RunFailed, StoreError
from components.shared.layout import CHECKPOINTS, DATASET, PLAN, export_folder
from components.shared.manifest import Manifest, fetch_folder, publish_folder, require_manifest
from components.shared.model_source import read_config, resolve_planned_model
from components.shared.plan import Plan
from components.shared.results import History, Verification
from components.shared.spec import RunSpec
from components.shared.step import Log, finished, open_run, work_folder
from components.shared.storage import Store

PROBE, HISTORY, VERIFICATION = "probe.safetensors", "history.json", "verification.json"


@dataclass(frozen=True)
class Trained:
    """What an export is made from: the run's finished folders, its last checkpoint, and local copies of what is small."""

    store: Store
    spec: RunSpec
    plan: Plan
    checkpoint: Checkpoint
    history: History
    probe: Path
    base: Path
    """The base model's folder, weights included."""


def export_run(run: str, log: Log) -> Manifest:
    """adapter/ or model/ is published; unchanged when it was made from these checkpoints already. Raises as `run_step`."""
    store, spec = open_run(run)
    training = require_manifest(store, CHECKPOINTS)
    folder = export_folder(spec.training.method)
    inputs = {"checkpoints": training.digest}
    done = finished(store, folder, inputs, log)
    if done is not None:
        return done
    work = work_folder(run, "export_adapter")
    trained = gather(store, spec, training, work)
    log.info("export", checkpoint=f"{run}/{trained.checkpoint.folder}", step=trained.checkpoint.step, base=str(trained.base))
    local = work / folder
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir()
    precision = write_export(trained, work, local)
    verification = verify_in_fresh_process(local, trained, precision, log)
    card = model_card(_card_facts(trained, verification))
    (local / "README.md").write_text(card, encoding="utf-8")
    published = publish_folder(store, folder, local, made_by="export_adapter", inputs=inputs, facts=_facts(trained, verification))
    shutil.rmtree(work)  # shards of a full model are 12 bytes a parameter
    return published


def gather(store: Store, spec: RunSpec, training: Manifest, work: Path) -> Trained:
    """Everything but the checkpoint's own files is at hand and fits together. Raises HaganeError."""
    fetch_folder(store, PLAN, work / PLAN, names=("plan.json",))
    fetch_folder(store, CHECKPOINTS, work / CHECKPOINTS, names=(HISTORY, PROBE))
    plan = Plan.model_validate_json((work / PLAN / "plan.json").read_bytes())
    trained = Trained(
        store=store,
        spec=spec,
        plan=plan,
        checkpoint=last_checkpoint(store, training),
        history=History.model_validate_json((work / CHECKPOINTS / HISTORY).read_bytes()),
        probe=work / CHECKPOINTS / PROBE,
        base=resolve_planned_model(plan).folder,
    )
    _check_vocabulary(trained)
    return trained


def last_checkpoint(store: Store, training: Manifest) -> Checkpoint:
    """The checkpoint at the end of the training. Raises StoreError when the store's last one is of an earlier epoch."""
    committed = committed_checkpoints(store)
    last, num_epochs = (committed[-1].epoch if committed else 0), training.facts["num_epochs"]
    if last != num_epochs:
        raise StoreError(
            f"{store.uri}/{CHECKPOINTS}: training ended with epoch {num_epochs}, the last checkpoint there is of epoch {last or 'none'}; "
            "restore it, or run the training again under another name"
        )
    return committed[-1]


def write_export(trained: Trained, work: Path, local: Path) -> str:
    """The weights, configs and tokenizer are in `local`. Returns the coarser of training's and the file's number format."""
    checkpoint = work / trained.checkpoint.manifest.digest[:12]
    if trained.plan.lora is not None:
        write_adapter(trained.store, trained.checkpoint, trained.plan, base=trained.base, scratch=checkpoint, local=local)
        return "fp32" if trained.plan.precision == "fp32" else "bf16"  # fp16 is finer than bf16, whose tolerance it is held to
    from components.export_adapter.full import write_model  # imports deepspeed, which only shards need

    dtype = write_model(trained.store, trained.checkpoint, base=trained.base, scratch=checkpoint, local=local)
    return "fp32" if trained.plan.precision == "fp32" and dtype == torch.float32 else "bf16"


def verify_in_fresh_process(local: Path, trained: Trained, precision: str, log: Log) -> Verification:
    """verification.json is in `local`, and says that the export gives the trained model's logits. Raises RunFailed."""
    arguments = [str(local), "--base", str(trained.base), "--probe", str(trained.probe), "--precision", precision]
    command = [sys.executable, "-m", "components.export_adapter.verify", *arguments]
    done = subprocess.run(
        command, env={**os.environ, "TQDM_DISABLE": "1"}, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    written = local / VERIFICATION
    if not written.is_file():
        last_line = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunFailed(f"{local.name}: the process that verifies it ended with exit code {done.returncode}: {last_line}")
    verification = Verification.model_validate_json(written.read_bytes())
    log.info(
        "verified" if verification.passed else "refused",
        precision=verification.precision,
        max_difference=round(verification.exported.max, 6),
        tolerance=round(verification.tolerance_max, 6),
        base_rms=round(verification.base.rms, 6),
    )
    if not verification.passed:
        raise RunFailed(*(f"{local.name}: not published: {problem}" for problem in verification.problems))
    return verification


def _check_vocabulary(trained: Trained) -> None:
    """An embedding of another size means another base than the one trained on. Raises ModelError."""
    expected = int(load_file(trained.probe)["logits"].shape[1])
    found = read_config(trained.base).get("vocab_size")
    if found != expected:
        raise ModelError(
            f"model.source: {trained.plan.model.source!r} has a vocabulary of {found} tokens, the trained model has {expected}; "
            "give back the base model that the run was trained on"
        )


def _facts(trained: Trained, verification: Verification) -> dict[str, str | int | float | bool | None]:
    return {
        "method": trained.plan.method,
        "epoch": trained.checkpoint.epoch,
        "step": trained.checkpoint.step,
        "max_difference": verification.exported.max,
        "tolerance": verification.tolerance_max,
    }


def _card_facts(trained: Trained, verification: Verification) -> CardFacts:
    return CardFacts(
        spec=trained.spec,
        plan=trained.plan,
        history=trained.history,
        verification=verification,
        dataset=require_manifest(trained.store, DATASET).facts,
    )
