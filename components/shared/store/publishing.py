"""A finished run's export -> the next version of a published model. Nothing is published that was
not verified or misses the gate.

The order: everything is checked, the version's number is claimed, its files are written, its
manifest, and only then the latest moves.
"""

import json
import os
import shutil
from pathlib import Path

from components.shared.documents.lineage import lineage_of
from components.shared.documents.plan import Plan
from components.shared.documents.results import BaseModel, Evaluation, Verification
from components.shared.errors import RunFailed, after_a_change
from components.shared.model.serving import ServedExport, write_serving_files
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import (
    EVALUATION,
    MERGED,
    PLAN,
    SPEC,
    export_folder,
    version_folder,
)
from components.shared.store.manifest import (
    Manifest,
    fetch_folder,
    publish_folder,
    read_manifest,
    require_manifest,
)
from components.shared.store.published import (
    Claim,
    Move,
    claim_version,
    latest_beside,
    make_latest,
    refuse_moved,
    was_latest,
    write_latest,
)
from components.shared.store.storage import LocalStore, Store, open_store

EVALUATION_FILE = "evaluation.json"
NO_GATE = (
    "says nothing of the gate; an earlier version of hagane made it: start the run again under "
    "another name"
)


def publish_run(run: Store, spec: RunSpec, *, name: str, work: Path) -> Move | None:
    """The run's export is a version of `name`, and the latest. None where it was published before,
    whatever is the latest now.

    `work`: a folder of this machine; export files that are there already are not fetched again.

    Raises:
        RunFailed: it is not verified, does not meet the gate, or was measured against a version
            that is no longer the latest, or against one of another name.
        StoreError: a folder of the run is not finished, or damaged; with exit code 1 where the
            store failed after the version's number was claimed.
    """
    run = at_its_full_path(run)
    export = require_manifest(run, export_folder(spec.training.method))
    evaluated = require_manifest(run, EVALUATION)
    fetch_folder(run, EVALUATION, work / EVALUATION)
    evaluation = Evaluation.model_validate_json((work / EVALUATION / EVALUATION_FILE).read_bytes())
    fetch_folder(run, export.folder, work / export.folder)
    merged = read_manifest(run, MERGED)
    if merged is not None and merged.inputs == export.inputs:
        fetch_folder(run, MERGED, work / MERGED)
    else:
        merged = None
    problems = [*unfit(export, evaluated, evaluation), *of_another_name(spec, evaluated, name)]
    problems += unverified(export, work / export.folder)
    problems += [] if merged is None else unverified(merged, work / MERGED)
    if problems:
        raise RunFailed(*(f"{run.uri}: not published: {problem}" for problem in problems))
    store = store_of(run)
    version = claim_version(store, name, Claim(run=run.uri, export=export.digest))
    with after_a_change():
        if was_latest(store, name, version):
            write_latest(store, name)
            return None
        seen = evaluated.facts.get("published_move")
        if isinstance(seen, int):
            instead_of = seen
        else:
            instead_of = None
        refuse_moved(store, name, instead_of)
        written = read_manifest(store, version_folder(name, version))
        if written is None or written.inputs["evaluation"] != evaluated.digest:
            _write_version(store, run, spec, export, merged, name=name, version=version, work=work)
        return make_latest(store, name, version, why="published", instead_of=instead_of)


def version_of_run(run: Store, spec: RunSpec, *, name: str) -> int:
    """The number under which `publish_run` published the run's export as `name`."""
    run = at_its_full_path(run)
    export = require_manifest(run, export_folder(spec.training.method))
    return claim_version(store_of(run), name, Claim(run=run.uri, export=export.digest))


def unverified(export: Manifest, folder: Path) -> list[str]:
    """One line for each way in which the export in `folder` is not what a fresh process
    verified."""
    verification = Verification.model_validate_json((folder / "verification.json").read_bytes())
    problems = [
        f"{export.folder}/: its verification failed: {problem}" for problem in verification.problems
    ]
    if not verification.passed and not problems:
        problems.append(f"{export.folder}/: its verification failed")
    used = [entry for entry in export.files if _is_used(entry.name)]
    changed = [entry.name for entry in used if verification.files.get(entry.name) != entry.sha256]
    return problems + [
        f"{export.folder}/{name} is not the file that was verified; export it again"
        for name in changed
    ]


def unfit(export: Manifest, evaluated: Manifest, evaluation: Evaluation) -> list[str]:
    """One line for each reason in the evaluation not to publish."""
    problems: list[str] = []
    if evaluated.inputs.get("adapter") != export.digest:
        problems.append(f"{EVALUATION}/ is of another export; evaluate this one: hagane run SPEC")
    if evaluation.gate is None:
        problems.append(f"{EVALUATION}/: {NO_GATE}")
    else:
        problems += evaluation.gate.not_met
    return problems


def of_another_name(spec: RunSpec, evaluated: Manifest, name: str) -> list[str]:
    """One line where a rule of the gate compared the export with what is published under another
    name."""
    compared_with = evaluated.facts.get("published_name", spec.publish.name)
    if "published_move" not in evaluated.facts or compared_with == name:
        return []
    return [
        f"a rule of gate compared it with what is published as {compared_with}, and this would be "
        f"{name}. Fix: set publish.name: {name} in the spec and run it again: the training stays"
    ]


def store_of(run: Store) -> Store:
    """The store that a run's folder is in; a local one has its full path."""
    uri = at_its_full_path(run).uri.rstrip("/")
    return open_store(uri.rpartition("/")[0] or "/")


def at_its_full_path(run: Store) -> Store:
    """The same folder, under a URI that does not depend on the current folder."""
    if "://" in run.uri:
        return run
    return LocalStore(Path(run.uri).resolve())


def _is_used(name: str) -> bool:
    """Whether the export is used by this file; else it is for people, or says how to serve it."""
    return "/" not in name and name not in ("README.md", "verification.json")


def export_of_version(store: Store, move: Move, local: Path) -> Path:
    """The export's folder of a published version, fetched into `local`, which holds nothing else:
    an earlier try may have fetched another version, whose weights a loader would take for this
    one's."""
    shutil.rmtree(local, ignore_errors=True)
    manifest = fetch_folder(store, move.folder, local)
    return local / str(manifest.facts["export"])


def compared_version(run: Store, spec: RunSpec, export: Manifest) -> Move | None:
    """The version with which rules of the spec's gate compare the export; None where no rule does,
    or there is none."""
    if spec.publish.name is None or not spec.compares_with_published:
        return None
    return latest_beside(store_of(run), spec.publish.name, export.digest)


def _write_version(
    store: Store,
    run: Store,
    spec: RunSpec,
    export: Manifest,
    merged: Manifest | None,
    *,
    name: str,
    version: int,
    work: Path,
) -> None:
    """Everything of the version is in the store, its manifest last. `work` holds the export and the
    evaluation, checked."""
    local = work / "version"
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir(parents=True)
    folder = version_folder(name, version)
    plan = Plan.model_validate_json(run.read_bytes(f"{PLAN}/plan.json"))
    base = BaseModel.model_validate_json((work / export.folder / "base.json").read_bytes())
    parts = [manifest.folder for manifest in (export, merged) if manifest is not None]
    for manifest in (export, merged):
        if manifest is not None:
            _link_files(manifest, work / manifest.folder, local / manifest.folder)
    for part in parts:
        if part == "adapter" and MERGED in parts:
            merged_uri = f"{store.uri}/{folder}/{MERGED}"
        else:
            merged_uri = None
        served = ServedExport(
            name=name,
            uri=f"{store.uri}/{folder}/{part}",
            plan=plan,
            base=base,
            is_adapter=part == "adapter",
            merged_uri=merged_uri,
            template_args=spec.data.template_args,
        )
        write_serving_files(served, local / part)
    lineage = lineage_of(run, spec, export, name=name, version=version, base=base)
    (local / "lineage.json").write_text(lineage.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (local / SPEC).write_bytes(run.read_bytes(SPEC))
    shutil.copyfile(work / EVALUATION / EVALUATION_FILE, local / EVALUATION_FILE)
    evaluation = json.loads((local / EVALUATION_FILE).read_bytes())
    facts = {
        "export": export.folder,
        "run": run.uri,
        "step": export.facts.get("step"),
        "base": base.label,
        "base_loss": None if evaluation["base"] is None else evaluation["base"]["loss"],
        "tuned_loss": None if evaluation["tuned"] is None else evaluation["tuned"]["loss"],
    }
    inputs = {"export": export.digest, "evaluation": lineage.evaluation.manifest_sha256}
    publish_folder(store, folder, local, made_by="publish", inputs=inputs, facts=facts)
    shutil.rmtree(local)


def _link_files(manifest: Manifest, source: Path, target: Path) -> None:
    """What the manifest names, and nothing else of `source`, is in `target`, without a second
    copy."""
    for entry in manifest.files:
        (target / entry.name).parent.mkdir(parents=True, exist_ok=True)
        os.link(source / entry.name, target / entry.name)
