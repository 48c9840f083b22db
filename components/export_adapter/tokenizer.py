"""The base's tokenizer with the new tokens, the chat template that trained and the end tokens ->
files beside an export's weights."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from components.shared.documents.prompts import Prompts
from components.shared.documents.tokenizer_sample import AS_WRITTEN
from components.shared.model.new_tokens import grow_tokenizer_files
from components.shared.model.serving import TEMPLATE
from components.shared.model.source import CONFIG_AND_TOKENIZER, read_json_object

GENERATION = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERATION_AND_TOKENIZER = tuple(name for name in CONFIG_AND_TOKENIZER if name != "config.json")
_NOT_TOKENIZER = ("config.json", GENERATION, TEMPLATE)


def write_tokenizer(base: Path, prompts: Prompts, local: Path) -> None:
    """`local` encodes text as the training data was encoded: transformers reads chat_template.jinja
    before any template in tokenizer_config.json. AutoTokenizer loads it without code of the
    model's."""
    for name in CONFIG_AND_TOKENIZER:
        if name not in _NOT_TOKENIZER and (base / name).is_file():
            shutil.copyfile(base / name, local / name)
    grow_tokenizer_files(base, local, prompts.new_tokens)
    if prompts.chat_template:
        (local / TEMPLATE).write_text(unix_lines(prompts.chat_template), encoding="utf-8")
    if not _has_class(local):
        _name_plain_class(local / TOKENIZER_CONFIG)


def unix_lines(text: str) -> str:
    """The text as transformers reads it from a file. Jinja renders \\r\\n, \\r and \\n of a
    template alike."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _has_class(local: Path) -> bool:
    """Whether transformers itself has the tokenizer's class. Code that came with the model is in no
    export."""
    try:
        AutoTokenizer.from_pretrained(local, trust_remote_code=False)
    except ValueError:
        return False
    return True


def _name_plain_class(file: Path) -> None:
    """The class is that which takes tokenizer.json as it is written, as the data was encoded."""
    settings = read_json_object(file) | {"tokenizer_class": AS_WRITTEN[0]}
    settings.pop("auto_map", None)
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_generation_config(base: Path, prompts: Prompts, local: Path) -> None:
    """generation_config.json in `local` is the base's, and ends at the tokens that end trained
    turns too.

    The base's other values stay as they are: servers read its sampling values, though transformers
    would not save them again without `do_sample: true`.
    """
    settings = _generation_settings(base)
    ends = sorted({*end_tokens(GenerationConfig.from_dict(settings)), *prompts.end_token_ids})
    if len(ends) > 1:
        settings["eos_token_id"] = ends
    else:
        settings["eos_token_id"] = ends[0]
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
    (local / GENERATION).write_text(f"{text}\n", encoding="utf-8")


def _generation_settings(base: Path) -> dict[str, Any]:
    """Of the base's generation_config.json, or else of its config.json as transformers reads it."""
    if (base / GENERATION).is_file():
        return read_json_object(base / GENERATION)
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    return json.loads(GenerationConfig.from_model_config(config).to_json_string())


def end_tokens(generation: GenerationConfig) -> list[int]:
    """Ids at which generation stops."""
    ends = generation.eos_token_id
    if ends is None:
        return []
    if isinstance(ends, list):
        return list(ends)
    return [ends]
