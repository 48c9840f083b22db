"""What a run did -> README.md of its export: the model card that hubs and people read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from components.shared.documents.plan import Plan
from components.shared.documents.prompts import Prompts
from components.shared.documents.results import BaseModel, History, Verification
from components.shared.figures import plural
from components.shared.model.quantization import dtype_words
from components.shared.model.serving import grown_lines
from components.shared.printable import markdown_code
from components.shared.spec.data import SourceSpec
from components.shared.spec.run_spec import RunSpec
from components.shared.spec.values import name_elsewhere
from components.shared.store.manifest import Scalar


@dataclass(frozen=True)
class CardFacts:
    spec: RunSpec
    plan: Plan
    history: History
    verification: Verification
    base: BaseModel
    prompts: Prompts
    dataset: Mapping[str, Scalar]
    """Facts of the dataset's manifest."""
    merged: bool = False
    """The card is of the base with the adapter merged into it."""

    @property
    def is_adapter(self) -> bool:
        return self.plan.lora is not None and not self.merged


def model_card(facts: CardFacts) -> str:
    """Markdown under YAML front matter (huggingface.co/docs/hub/model-cards, keys of its
    specification)."""
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    sections = (
        _headline(facts),
        _data(facts),
        _training(facts),
        _proof(facts),
        _loading(facts),
        _LICENCE,
    )
    return f"---\n{front}---\n\n" + "\n".join(sections)


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    """A folder has no address that a hub knows, so only a hub id is named as base_model."""
    front: dict[str, Any] = {}
    if facts.base.hub_id is not None:
        front = {"base_model": facts.base.hub_id, "base_model_revision": facts.base.commit}
    if facts.is_adapter:
        library, tag = ("peft", "lora")
    else:
        library, tag = ("transformers", "merged-lora" if facts.merged else "full-parameter")
    if facts.is_adapter:
        relation = "adapter"
    else:
        relation = "finetune"
    return front | {
        "base_model_relation": relation,
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": [tag, "hagane"],
    }


def _headline(facts: CardFacts) -> str:
    plan = facts.plan
    what = "A fully fine-tuned model"
    if plan.lora is not None:
        adapter = f"A LoRA adapter (rank {plan.lora.rank})"
        if facts.merged:
            what = f"{adapter} merged into its base model,"
        else:
            what = adapter
    if plan.model.quantization == "nf4" and facts.is_adapter:
        what += ", trained on 4-bit weights (NF4, bitsandbytes)"
    base = markdown_code(facts.base.label)
    run = markdown_code(name_elsewhere(facts.spec.run_uri))
    return f"# {plan.run}\n\n{what} of {base}, made by hagane from the run {run}.\n"


def _data(facts: CardFacts) -> str:
    found = facts.dataset
    held_out = _names(facts.spec.data.held_out_sources)
    train = markdown_code(_names(facts.spec.data.train_sources))
    if held_out:
        source = markdown_code(held_out)
    else:
        source = f"set aside from {train}"
    measured = (
        "nothing was held out: no loss was measured on conversations that it was not trained on"
    )
    if facts.spec.data.holds_out:
        measured = (
            f"measured on {found['held_out_conversations']:,} held-out conversations ({source})"
        )
    chosen = facts.spec.data.chat_template
    if chosen == "model":
        template = "the chat template that the base model brings"
    else:
        template = f"the chat template {markdown_code(name_elsewhere(chosen))}"
    trained = "assistant turns, on which alone the loss was taken"
    if not facts.prompts.chat_template:
        trained = "trained on"
        template = "no chat template: texts are trained on as they are"
    return (
        f"## Data\n\n- trained on {found['num_conversations']:,} conversations of {train}: "
        f"{found['num_tokens']:,} tokens in {found['num_rows']:,} rows, "
        f"{found['num_trained_tokens']:,} of them {trained}\n- written by {template}\n- "
        f"{measured}\n"
    )


def _names(sources: tuple[SourceSpec, ...]) -> str:
    return ", ".join(name_elsewhere(source.path) for source in sources)


def _training(facts: CardFacts) -> str:
    plan, training = facts.plan, facts.spec.training
    lines = [
        (
            f"- {plan.num_trainable:,} of {plan.model.num_parameters:,} parameters trained, "
            f"{plan.precision}"
        ),
        f"- {plural(training.epochs, 'epoch')}, {plural(plan.steps.total_steps, 'step')} of "
        f"{plural(plan.steps.global_batch, 'row')}, AdamW, lr {plan.learning_rate:g} "
        f"({training.lr_schedule}, {plan.steps.warmup_steps} warm-up steps), seed {training.seed}",
    ]
    if facts.history.skipped_steps:
        lines.append(
            f"- {facts.history.skipped_steps:,} of these steps changed nothing: the scaled "
            "gradient overflowed fp16"
        )
    if plan.lora is not None:
        lora = plan.lora
        name, layers = "rsLoRA" if lora.rslora else "LoRA", ", ".join(lora.target_modules)
        lines.append(
            f"- {name} rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g} on {layers}"
        )
    table = _loss_table(facts.history)
    return (
        "## Training\n\n"
        + "\n".join(lines)
        + "\n\n"
        + "\n".join(table)
        + (
            "\n\nLosses are nats per trained token; an epoch's training loss is the mean over its "
            "tokens as they came.\n"
        )
    )


def _loss_table(history: History) -> list[str]:
    if history.start_held_out_loss is None:
        rows = [f"| {epoch.epoch} | {epoch.step} | {epoch.loss:.4f} |" for epoch in history.epochs]
        return ["| epoch | step | training loss |", "|---|---|---|", *rows]
    table = ["| epoch | step | training loss | held-out loss |", "|---|---|---|---|"]
    table.append(f"| before | 0 | | {history.start_held_out_loss:.4f} |")
    return table + [
        f"| {epoch.epoch} | {epoch.step} | {epoch.loss:.4f} | {epoch.held_out_loss:.4f} |"
        for epoch in history.epochs
    ]


def _proof(facts: CardFacts) -> str:
    found = facts.verification
    if facts.is_adapter:
        libraries = "transformers and peft"
    else:
        libraries = "transformers"
    return (
        f"## Checked before it was published\n\nLoaded by plain {libraries} in a fresh process "
        f"({found.precision}):\n\n- its tokenizer and chat template give the token ids of training "
        f"for {found.num_prompts} prompts of the data\n- its logits at {found.num_tokens} "
        f"positions of these are within {found.exported.max:.2g} standard deviations of the "
        f"trained model's (allowed: {found.tolerance_max:.2g}); the base model's are "
        f"{found.base.max:.2g} away\n- it stops at {found.num_stops} of {found.num_ends} turn "
        "ends\n\nDetails: `verification.json`.\n"
    )


def _loading(facts: CardFacts) -> str:
    """Code that loads the export and answers one question, from any folder and without hagane."""
    turns = facts.prompts.prompts[0].messages
    question = next((each["content"] for each in turns if each["role"] == "user"), "Hello")
    asked = _generate(json.dumps(question, ensure_ascii=False), facts.prompts)
    code = "\n".join([*_imports(facts), "", 'here = "path/to/this/folder"', *_load(facts), *asked])
    if facts.is_adapter:
        note = f"The base model is {markdown_code(facts.base.label)}.\n\n"
    else:
        note = ""
    return f"## Use\n\n{note}```python\n{code}\n```\n"


def _imports(facts: CardFacts) -> list[str]:
    transformers = "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig"
    if facts.is_adapter:
        return ["from peft import PeftModel", transformers]
    return [transformers]


def _load(facts: CardFacts) -> list[str]:
    if not facts.is_adapter:
        return ['model = AutoModelForCausalLM.from_pretrained(here, dtype="auto")']
    base = facts.base
    source = json.dumps(base.hub_id or f"path/to/{base.folder}", ensure_ascii=False)
    if base.commit is not None:
        revision = f", revision={base.commit!r}"
    else:
        revision = ""
    return [
        f"base = {source}",
        (
            f"model = AutoModelForCausalLM.from_pretrained(base{revision}, "
            f"{dtype_words(facts.plan)})"
        ),
        *grown_lines(facts.plan),
        "model = PeftModel.from_pretrained(model, here)",
    ]


def _prompt(question: str, prompts: Prompts) -> list[str]:
    """`question` is a literal of Python. The template gets the arguments that it had for the
    training data."""
    if not prompts.chat_template:
        return [f'prompt = tokenizer({question}, return_tensors="pt")']
    if prompts.template_args:
        arguments = [f"    **{dict(prompts.template_args)!r},"]
    else:
        arguments = []
    return [
        f'messages = [{{"role": "user", "content": {question}}}]',
        "prompt = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt",',
        *arguments,
        ")",
    ]


def _generate(question: str, prompts: Prompts) -> list[str]:
    return [
        "tokenizer = AutoTokenizer.from_pretrained(here)",
        *_prompt(question, prompts),
        "settings = GenerationConfig.from_pretrained(here)",
        "settings.max_new_tokens = 200",
        "tokens = model.generate(**prompt, generation_config=settings)",
        (
            'print(tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], '
            "skip_special_tokens=True))"
        ),
    ]


_LICENCE = (
    "## Licence\n\nWhat was trained here is bound by the base model's licence; see the base "
    "model.\n"
)
