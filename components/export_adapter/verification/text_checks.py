"""An export's tokenizer, template and generation config, loaded by plain transformers -> what
differs from training."""

import hashlib
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig

from components.export_adapter.tokenizer import end_tokens, unix_lines
from components.shared.documents.prompts import Prompt, Prompts, rendered_otherwise


def text_problems(folder: Path, prompts: Prompts) -> list[str]:
    """One line for each kind of difference. Nothing but the folder and the prompts is read."""
    absent = [
        name
        for name in ("tokenizer.json", "generation_config.json")
        if not (folder / name).is_file()
    ]
    if absent:
        return [f"it holds no {name}" for name in absent]
    changed = digest_problems(folder, prompts)
    if changed:
        return changed  # what was changed by hand may not even load
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    problems = token_id_problems(tokenizer, prompts)
    problems += template_problems(tokenizer, prompts)
    return problems + end_problems(GenerationConfig.from_pretrained(folder), prompts)


def digest_problems(folder: Path, prompts: Prompts) -> list[str]:
    """Whether tokenizer.json is, byte for byte, the one that encoded the data."""
    recorded = {each.name: each.sha256 for each in prompts.base_files}
    found = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    if found == (prompts.tokenizer_sha256 or recorded.get("tokenizer.json")):
        return []
    return [f"its tokenizer.json is not the one that encoded the data (sha256 {found[:12]})"]


def token_id_problems(tokenizer: Any, prompts: Prompts) -> list[str]:
    """Whether the prompts' text gives the token ids that were trained on."""
    encoded = [
        tokenizer(prompt.text, add_special_tokens=False)["input_ids"] for prompt in prompts.prompts
    ]
    pairs = list(zip(encoded, prompts.prompts, strict=True))
    wrong = [(ids, prompt) for ids, prompt in pairs if list(ids) != list(prompt.token_ids)]
    if not wrong:
        return []
    return [
        (
            f"its tokenizer gives other token ids for {len(wrong)} of {len(pairs)} prompts: "
            f"{_first_difference(*wrong[0])}"
        )
    ]


def template_problems(tokenizer: Any, prompts: Prompts) -> list[str]:
    """Whether its chat template writes the text that was trained on. A template that writes the
    date is not rendered."""
    if (tokenizer.chat_template or "") != unix_lines(prompts.chat_template):
        return ["its chat template is not the one that wrote the training data"]
    wrong, num_rendered = rendered_otherwise(tokenizer, prompts)
    if wrong:
        return [f"its chat template writes {wrong} of {num_rendered} prompts differently"]
    return []


def end_problems(generation: GenerationConfig, prompts: Prompts) -> list[str]:
    """Whether generation stops at every token that ends a trained turn."""
    if not prompts.end_token_ids:
        return [
            (
                "no assistant turn of the prompts ends with an end token, so the model was never "
                "taught to stop"
            )
        ]
    ends = end_tokens(generation)
    absent = [token for token in prompts.end_token_ids if token not in ends]
    if absent:
        return [f"its generation_config.json stops at {ends}, trained turns end with {absent}"]
    return []


def _first_difference(ids: list[int], prompt: Prompt) -> str:
    for place, (found, expected) in enumerate(zip(ids, prompt.token_ids, strict=False)):
        if found != expected:
            return f"{found} at position {place}, trained was {expected}"
    return f"{len(ids)} tokens, trained were {len(prompt.token_ids)}"
