"""A committed checkpoint of a run -> its export on this machine, verified in a fresh process."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from components.export_adapter.base import BASE, base_model
from components.export_adapter.card import CardFacts, model_card
from components.export_adapter.chosen import HISTORY, fetch_probe
from components.export_adapter.provenance import base_problems, provenance_problems
from components.export_adapter.tokenizer import (
    GENERATION_AND_TOKENIZER,
    write_generation_config,
    write_tokenizer,
)
from components.export_adapter.verification.probe import probe_problems
from components.export_adapter.weights.adapter import write_adapter
from components.export_adapter.weights.merge import merge
from components.export_adapter.weights.merge_decision import merge_decision
from components.export_adapter.weights.merge_quantized import merge_quantized
from components.shared.documents.plan import Plan
from components.shared.documents.prompts import PROBE, PROMPTS, Prompts, read_prompts
from components.shared.documents.results import BaseModel, History, Verification
from components.shared.errors import ModelError, RunFailed
from components.shared.model.new_tokens import num_embeddings, vocabulary_of
from components.shared.model.serving import ServedExport, write_serving_files
from components.shared.model.source import read_config, resolve_planned_model
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log
from components.shared.store.checkpoints import Checkpoint
from components.shared.store.layout import CHECKPOINTS, DATASET, MERGED, PLAN, export_folder
from components.shared.store.manifest import Manifest, fetch_folder, require_manifest
from components.shared.store.storage import Store

VERIFICATION = "verification.json"


@dataclass(frozen=True)
class Trained:
    """What an export is made from: the run's finished folders, the checkpoint that was chosen, and
    local copies of what is small."""

    store: Store
    spec: RunSpec
    plan: Plan
    checkpoint: Checkpoint
    history: History
    probe: Path
    prompts: Prompts
    prompts_file: Path
    base: Path
    """The base model's folder, weights included."""
    place: str
    """URI of the folder in which the export's will be."""


@dataclass(frozen=True)
class Built:
    """An export on this machine, verified."""

    local: Path
    verification: Verification
    merged: Path | None = None
    merged_verification: Verification | None = None


def build(trained: Trained, work: Path, log: Log) -> Built:
    """The export, and the merged model where there is to be one, are below `work`, each verified in
    a fresh process. Raises RunFailed."""
    log.info(
        "export",
        checkpoint=f"{trained.store.uri}/{trained.checkpoint.folder}",
        step=trained.checkpoint.step,
        base=str(trained.base),
    )
    local = _emptied(work / export_folder(trained.spec.training.method))
    precision = write_export(trained, work, local)
    base = write_beside_weights(trained, local)
    verification = verify_in_fresh_process(local, trained, precision, log)
    facts = _card_facts(trained, verification, base)
    (local / "README.md").write_text(model_card(facts), encoding="utf-8")
    merges = merge_decision(trained.spec.export, trained.plan)
    write_serving_files(_served(trained, local, base, merges=merges.merges), local)
    log.info("merge", merges=merges.merges, reason=merges.reason)
    if not merges.merges:
        return Built(local, verification)
    merged, of_merged = build_merged(trained, local, facts, log)
    return Built(local, verification, merged, of_merged)


def build_merged(
    trained: Trained, adapter: Path, facts: CardFacts, log: Log
) -> tuple[Path, Verification]:
    """merged/ is beside the adapter, verified like it. Raises RunFailed."""
    assert trained.plan.lora is not None
    local = _emptied(adapter.with_name(MERGED))
    if trained.plan.model.quantization == "nf4":
        dtype = merge_quantized(
            trained.base,
            adapter,
            trained.plan.precision,
            local,
            new_tokens=trained.prompts.new_tokens,
        )
    else:
        lora, new_tokens = trained.plan.lora, trained.prompts.new_tokens
        dtype = merge(trained.base, adapter, lora, local, new_tokens=new_tokens)
    for name in (BASE, *GENERATION_AND_TOKENIZER):
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, local / name)
    if trained.plan.precision == "fp32" and dtype == torch.float32:
        precision = "fp32"
    else:
        precision = "bf16"
    verification = verify_in_fresh_process(local, trained, precision, log)
    card = model_card(replace(facts, verification=verification, merged=True))
    (local / "README.md").write_text(card, encoding="utf-8")
    write_serving_files(_served(trained, local, facts.base, merges=False), local)
    return local, verification


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def gather(
    store: Store,
    spec: RunSpec,
    plan: Plan,
    checkpoint: Checkpoint,
    work: Path,
    *,
    training: Manifest,
    place: str,
) -> Trained:
    """Everything but the checkpoint's own files is at hand and fits together. Raises
    HaganeError."""
    dataset = fetch_folder(store, DATASET, work / DATASET, names=(PROMPTS,))
    fetch_folder(store, CHECKPOINTS, work / CHECKPOINTS, names=(HISTORY, PROBE))
    prompts = read_prompts(work / DATASET)
    problems = provenance_problems(
        plan, prompts, dataset=dataset, planned=require_manifest(store, PLAN), training=training
    )
    if problems:
        raise RunFailed(*problems)
    trained = Trained(
        store=store,
        spec=spec,
        plan=plan,
        checkpoint=checkpoint,
        history=History.model_validate_json((work / CHECKPOINTS / HISTORY).read_bytes()),
        probe=fetch_probe(store, checkpoint, work, training=training),
        prompts=prompts,
        prompts_file=work / DATASET / PROMPTS,
        base=resolve_planned_model(plan).folder,
        place=place.rstrip("/"),
    )
    _check_base(trained)
    _check_probe(trained)
    return trained


def write_export(trained: Trained, work: Path, local: Path) -> str:
    """The weights and their config are in `local`. Returns the coarser of training's and the file's
    number format."""
    checkpoint = work / trained.checkpoint.manifest.digest[:12]
    if trained.plan.lora is not None:
        write_adapter(
            trained.store,
            trained.checkpoint,
            trained.plan,
            base=trained.base,
            scratch=checkpoint,
            local=local,
            new_tokens=trained.prompts.new_tokens,
        )
        return (
            "fp32" if trained.plan.precision == "fp32" else "bf16"
        )  # fp16 is finer than bf16, whose tolerance it is held to
    from components.export_adapter.weights.full import (
        write_model,
    )  # imports deepspeed, which only shards need

    dtype = write_model(
        trained.store,
        trained.checkpoint,
        base=trained.base,
        scratch=checkpoint,
        local=local,
        new_tokens=trained.prompts.new_tokens,
    )
    if trained.plan.precision == "fp32" and dtype == torch.float32:
        return "fp32"
    return "bf16"


def write_beside_weights(trained: Trained, local: Path) -> BaseModel:
    """Tokenizer, chat template, generation config and base.json are in `local`, which with the base
    is all that use needs."""
    write_tokenizer(trained.base, trained.prompts, local)
    write_generation_config(trained.base, trained.prompts, local)
    base = base_model(trained.plan, trained.base)
    (local / BASE).write_text(
        base.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8"
    )
    return base


def verify_in_fresh_process(
    local: Path, trained: Trained, precision: str, log: Log
) -> Verification:
    """verification.json is in `local`, and says that the export gives the trained model's logits.
    Raises RunFailed."""
    arguments = [str(local), "--base", str(trained.base), "--probe", str(trained.probe)]
    arguments += ["--prompts", str(trained.prompts_file), "--precision", precision]
    if trained.plan.model.quantization == "nf4":
        arguments += ["--quantized-from", trained.plan.precision]
    command = [sys.executable, "-m", "components.export_adapter.verification.verify", *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, "TQDM_DISABLE": "1"},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    written = local / VERIFICATION
    if not written.is_file():
        last_line = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunFailed(
            f"{local.name}: the process that verifies it ended with exit code {done.returncode}: "
            f"{last_line}"
        )
    verification = Verification.model_validate_json(written.read_bytes())
    log.info(
        "verified" if verification.passed else "refused",
        precision=verification.precision,
        max_difference=round(verification.exported.max, 6),
        tolerance=round(verification.tolerance_max, 6),
        base_rms=round(verification.base.rms, 6),
        prompts=verification.num_prompts,
        stops=f"{verification.num_stops}/{verification.num_ends}",
    )
    if not verification.passed:
        raise RunFailed(
            *(f"{local.name}: not published: {problem}" for problem in verification.problems)
        )
    return verification


def _check_base(trained: Trained) -> None:
    """Raises ModelError where the base is not the one that the data was prepared with, or has
    another vocabulary."""
    problems = base_problems(trained.plan.model.source, trained.base, trained.prompts)
    if problems:
        raise ModelError(*problems)


def _check_probe(trained: Trained) -> None:
    """Raises RunFailed where the probe is not of the data's prompts, ModelError where the base has
    another vocabulary."""
    problems = probe_problems(load_file(trained.probe), trained.prompts)
    if problems:
        raise RunFailed(*(f"{CHECKPOINTS}/{PROBE}: {problem}" for problem in problems))
    expected = int(load_file(trained.probe)["logits"].shape[1])
    rows = vocabulary_of(read_config(trained.base)) or 0
    found = num_embeddings(rows, trained.prompts.new_tokens)
    if found != expected:
        raise ModelError(
            f"model.source: {trained.plan.model.source!r} has a vocabulary of {found} tokens, the "
            f"trained model has {expected}; give back the base model that the run was trained on"
        )


def _served(trained: Trained, local: Path, base: BaseModel, *, merges: bool) -> ServedExport:
    """By the name under which the spec publishes it, or else the run's."""
    return ServedExport(
        name=trained.spec.publish.name or trained.spec.name,
        uri=f"{trained.place}/{local.name}",
        plan=trained.plan,
        base=base,
        is_adapter=(local / "adapter_config.json").is_file(),
        merged_uri=f"{trained.place}/{MERGED}" if merges else None,
        template_args=trained.prompts.template_args,
    )


def _card_facts(trained: Trained, verification: Verification, base: BaseModel) -> CardFacts:
    return CardFacts(
        spec=trained.spec,
        plan=trained.plan,
        history=trained.history,
        verification=verification,
        base=base,
        prompts=trained.prompts,
        dataset=require_manifest(trained.store, DATASET).facts,
    )
