"""The base's tokenizer, the chat template that trained and the end tokens -> files beside an export's weights."""

import shutil
from pathlib import Path

from transformers import AutoConfig, GenerationConfig

from components.shared.model_source import CONFIG_AND_TOKENIZER
from components.shared.prompts import Prompts

TEMPLATE = "chat_template.jinja"
GENERATION_AND_TOKENIZER = tuple(name for name in CONFIG_AND_TOKENIZER if name != "config.json")
_NOT_TOKENIZER = ("config.json", "generation_config.json", TEMPLATE)


def write_tokenizer(base: Path, prompts: Prompts, local: Path) -> None:
    """`local` encodes text as the training data was encoded: transformers reads chat_template.jinja before any template
    in tokenizer_config.json."""
    for name in CONFIG_AND_TOKENIZER:
        if name not in _NOT_TOKENIZER and (base / name).is_file():
            shutil.copyfile(base / name, local / name)
    (local / TEMPLATE).write_text(prompts.chat_template, encoding="utf-8")


def write_generation_config(base: Path, prompts: Prompts, local: Path) -> None:
    """generation_config.json in `local` is the base's, and ends at the tokens that end trained turns too."""
    if (base / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(base)
    else:
        generation = GenerationConfig.from_model_config(AutoConfig.from_pretrained(base, trust_remote_code=False))
    ends = sorted({*end_tokens(generation), *prompts.end_token_ids})
    generation.eos_token_id = ends if len(ends) > 1 else ends[0]
    generation.save_pretrained(local)


def end_tokens(generation: GenerationConfig) -> list[int]:
    """Ids at which generation stops."""
    ends = generation.eos_token_id
    if ends is None:
        return []
    return list(ends) if isinstance(ends, list) else [ends]
