"""What a run's folders say of each other and of the base -> one line for each thing that does not belong to this run."""

import hashlib
from pathlib import Path

from components.shared.documents.plan import Plan
from components.shared.documents.prompts import Prompts, base_files
from components.shared.store.manifest import Manifest


def provenance_problems(plan: Plan, prompts: Prompts, *, dataset: Manifest, planned: Manifest, training: Manifest) -> list[str]:
    """Whether dataset/, plan/ and checkpoints/ were made from each other."""
    problems: list[str] = []
    if planned.inputs.get("dataset") != dataset.digest:
        problems.append(_line("plan", "was made from another dataset", planned.inputs.get("dataset"), dataset.digest))
    if training.inputs.get("training") != plan.training_digest:
        problems.append(_line("checkpoints", "are of another training", training.inputs.get("training"), plan.training_digest))
    template = hashlib.sha256(prompts.chat_template.encode()).hexdigest()
    if dataset.inputs.get("template") != template:
        problems.append(_line("dataset/prompts.json", "has another chat template", template, dataset.inputs.get("template")))
    if plan.model.revision != dataset.facts.get("model_revision"):
        problems.append(
            f"plan: model.revision: found {plan.model.revision!r}, "
            f"the data was prepared with {dataset.facts.get('model_revision')!r}. Fix: plan the run again under another name"
        )
    return problems


def base_problems(source: str, base: Path, prompts: Prompts) -> list[str]:
    """Whether the base model's config, tokenizer and template are still those that the data was prepared with."""
    recorded = {each.name: each.sha256 for each in prompts.base_files}
    present = {each.name: each.sha256 for each in base_files(base)}
    where = f"model.source: {source!r}"
    fix = "Fix: give back the base model that the run was prepared with"
    absent = [name for name in recorded if name not in present]
    foreign = [name for name in present if name not in recorded]
    changed = [name for name, sha256 in recorded.items() if present.get(name, sha256) != sha256]
    return [
        *(f"{where} holds no {name}, the data was prepared with one. {fix}" for name in absent),
        *(f"{where} holds a {name}, the data was prepared without one. {fix}" for name in foreign),
        *(
            f"{where}: {name}: found sha256 {present[name][:12]}, the data was prepared with {recorded[name][:12]}. {fix}"
            for name in changed
        ),
    ]


def _line(where: str, what: str, found: str | None, expected: str | None) -> str:
    short = [(digest or "none")[:12] for digest in (found, expected)]
    return f"{where}: {what}: found {short[0]}, must be {short[1]}. Fix: run all steps again under another name"
