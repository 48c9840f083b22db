"""Records and a model -> the first spec for them: few lines, each value with its reason."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from components.shared.figures import plural
from components.shared.model.registry import known_model
from components.shared.model.source import read_json_object
from components.shared.own_files import own_file
from pipelines.programs.component_program import output_of

TEMPLATES = own_file("specs/templates")
FEW = 1000
"""Conversations. Fewer are trained one to a row, in more epochs: packed rows would make too few
optimizer steps."""
FEWEST_STEPS = 50
"""`hagane plan` warns of fewer."""
GLOBAL_BATCHES = (8, 4, 2)


@dataclass(frozen=True)
class Looked:
    """What the records are, as `hagane data --json` says."""

    form: str
    num_conversations: int
    is_japanese: bool
    """The first and the longest conversation have kana."""


def look_at(data: str) -> Looked:
    """Raises HaganeError as `hagane data` does."""
    document = json.loads(output_of("components.prepare_dataset", "--look", data, "--json"))
    shown = json.dumps([document["first"], document["longest"]], ensure_ascii=False)
    return Looked(
        form=document["form"],
        num_conversations=document["records"]["conversations"],
        is_japanese=any("\u3041" <= letter <= "\u30ff" for letter in shown),
    )


def template_for(looked: Looked, model: str) -> Path | None:
    """The chat template for a model that brings none, in the language of the data; None where the
    model has its own."""
    if has_template(model):
        return None
    return TEMPLATES / ("alpaca-ja.jinja" if looked.is_japanese else "alpaca.jinja")


def first_spec(
    looked: Looked,
    *,
    name: str,
    store: str,
    model: str,
    data: str,
    template: str | None,
    full: bool,
) -> str:
    """YAML of at most a dozen fields, with comments. Paths are written as they are given:
    relative ones must count from the folder of the spec."""
    lines = [
        "# Every field that is not here has a default: docs/spec.md",
        f"name: {_scalar(name)}",
        f"store: {_scalar(store)}",
        "model:",
        f"  source: {_scalar(model)}",
        "data:",
        f"  train: {_scalar(data)}  # {looked.num_conversations:,} conversations, {looked.form}",
    ]
    lines.append("  row_tokens: auto  # from the longest conversation and what the model allows")
    if template is not None:
        lines.append(f"  chat_template: {_scalar(template)}  # the model brings none")
    if looked.num_conversations < FEW:
        lines.append("  packing: false  # few conversations: one a row makes more optimizer steps")
    lines += ["training:", f"  method: {'full' if full else 'lora'}", *_steps(looked)]
    return "\n".join(lines) + "\n"


def has_template(model: str) -> bool:
    """Whether the tokenizer brings a chat template; of a hub id that is not known by name, yes: the
    plan says it where it brings none. Raises ModelError as `read_json_object`."""
    known = known_model(model)
    if known is not None:
        return known[1].template == "own"
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return True
    if (folder / "chat_template.jinja").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and bool(read_json_object(settings).get("chat_template"))


def _steps(looked: Looked) -> list[str]:
    """Epochs and rows per optimizer step, so that there are enough steps where there can be."""
    if looked.num_conversations >= FEW:
        return ["  epochs: 3"]
    epochs = 5
    batches = [each for each in GLOBAL_BATCHES if _num_steps(looked, each, epochs) >= FEWEST_STEPS]
    if batches:
        batch = batches[0]
    else:
        batch = GLOBAL_BATCHES[-1]
    num_steps = _num_steps(looked, batch, epochs)
    return [
        f"  epochs: {epochs}  # few conversations are read more often; compare their held-out loss",
        f"  global_batch: {batch}  # rows per optimizer step: about {plural(num_steps, 'step')}",
    ]


def _num_steps(looked: Looked, batch: int, epochs: int) -> int:
    return math.ceil(looked.num_conversations / batch) * epochs


def _scalar(value: str) -> str:
    """One value of YAML on one line."""
    return yaml.safe_dump(value, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
