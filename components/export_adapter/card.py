"""What a run did -> README.md of its export: the model card that hubs and people read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from components.shared.manifest import Scalar
from components.shared.plan import Plan
from components.shared.printable import markdown_code
from components.shared.results import History, Verification
from components.shared.spec import RunSpec


@dataclass(frozen=True)
class CardFacts:
    spec: RunSpec
    plan: Plan
    history: History
    verification: Verification
    dataset: Mapping[str, Scalar]
    """Facts of the dataset's manifest."""


def model_card(facts: CardFacts) -> str:
    """Markdown under YAML front matter (huggingface.co/docs/hub/model-cards, keys of its specification)."""
    front = yaml.safe_dump(_front_matter(facts.plan), sort_keys=False, allow_unicode=True)
    sections = (_headline(facts), _data(facts), _training(facts), _proof(facts), _loading(facts.plan), _LICENCE)
    return f"---\n{front}---\n\n" + "\n".join(sections)


def _front_matter(plan: Plan) -> dict[str, Any]:
    front: dict[str, Any] = {"base_model": plan.model.source}
    if plan.model.revision is not None:
        front["base_model_revision"] = plan.model.revision
    library, tag = ("peft", "lora") if plan.lora is not None else ("transformers", "full-parameter")
    relation = "adapter" if plan.lora is not None else "finetune"
    return front | {"base_model_relation": relation, "library_name": library, "pipeline_tag": "text-generation", "tags": [tag, "hagane"]}


def _headline(facts: CardFacts) -> str:
    plan = facts.plan
    what = f"A LoRA adapter (rank {plan.lora.rank})" if plan.lora is not None else "A fully fine-tuned model"
    base, run = markdown_code(plan.model.source), markdown_code(facts.spec.run_uri)
    return f"# {plan.run}\n\n{what} of {base}, made by hagane from the run {run}.\n"


def _data(facts: CardFacts) -> str:
    found = facts.dataset
    held_out = facts.spec.data.held_out
    train = markdown_code(facts.spec.data.train)
    source = markdown_code(held_out) if held_out is not None else f"set aside from {train}"
    chosen = facts.spec.data.chat_template
    template = "the chat template that the base model brings" if chosen == "model" else f"the chat template {markdown_code(chosen)}"
    return (
        "## Data\n\n"
        f"- trained on {found['num_conversations']:,} conversations of {train}: {found['num_tokens']:,} tokens in "
        f"{found['num_rows']:,} rows, {found['num_trained_tokens']:,} of them assistant turns, on which alone the loss was taken\n"
        f"- written by {template}\n"
        f"- measured on {found['held_out_conversations']:,} held-out conversations ({source})\n"
    )


def _training(facts: CardFacts) -> str:
    plan, training = facts.plan, facts.spec.training
    lines = [
        f"- {plan.num_trainable:,} of {plan.model.num_parameters:,} parameters trained, {plan.precision}",
        f"- {training.epochs} epochs, {plan.steps.total_steps:,} steps of {plan.steps.global_batch} rows, "
        f"AdamW, lr {training.lr_peak:g} ({training.lr_schedule}, {plan.steps.warmup_steps} warm-up steps), seed {training.seed}",
    ]
    if plan.lora is not None:
        lora = plan.lora
        lines.append(f"- LoRA rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g} on {', '.join(lora.target_modules)}")
    table = ["| epoch | step | training loss | held-out loss |", "|---|---|---|---|"]
    table.append(f"| before | 0 | | {facts.history.start_held_out_loss:.4f} |")
    table += [f"| {epoch.epoch} | {epoch.step} | {epoch.loss:.4f} | {epoch.held_out_loss:.4f} |" for epoch in facts.history.epochs]
    return "## Training\n\n" + "\n".join(lines) + "\n\n" + "\n".join(table) + "\n\nLosses are nats per trained token.\n"


def _proof(facts: CardFacts) -> str:
    found = facts.verification
    libraries = "transformers and peft" if facts.plan.lora is not None else "transformers"
    return (
        "## Checked before it was published\n\n"
        f"Loaded by plain {libraries} in a fresh process ({found.precision}), its logits for {found.num_tokens} held-out tokens are "
        f"within {found.exported.max:.2g} standard deviations of the trained model's (allowed: {found.tolerance_max:.2g}); "
        f"the base model's are {found.base.max:.2g} away. Details: `verification.json`.\n"
    )


def _loading(plan: Plan) -> str:
    base, revision = plan.model.source, plan.model.revision
    commit = f", revision={revision!r}" if revision is not None else ""
    here = "path/to/this/folder"
    if plan.lora is not None:
        code = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f"base = AutoModelForCausalLM.from_pretrained({base!r}{commit})",
            f"model = PeftModel.from_pretrained(base, {here!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({base!r}{commit})",
        ]
    else:
        code = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f"model = AutoModelForCausalLM.from_pretrained({here!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({here!r})",
        ]
    return "## Use\n\n```python\n" + "\n".join(code) + "\n```\n"


_LICENCE = "## Licence\n\nWhat was trained here is bound by the base model's licence; see the base model.\n"
