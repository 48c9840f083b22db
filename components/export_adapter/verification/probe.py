"""probe.safetensors of a training -> the trained model's logits for the data's prompts; refused unless it is just that.

Shapes: K positions of all prompts (the last PROBE_POSITIONS of each), V tokens of the vocabulary.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from components.shared.documents.prompts import PROBE_POSITIONS, Prompt, Prompts

TENSORS = ("tokens", "lengths", "logits")


@dataclass(frozen=True)
class TurnEnd:
    """The position of a prompt whose next token ends an assistant turn."""

    prompt: int
    """Index among the prompts."""
    row: int
    """Of the logits [K, V] that choose that token."""
    token: int


def probe_problems(probe: Mapping[str, torch.Tensor], prompts: Prompts) -> list[str]:
    """One line for each way in which the probe is not the trained model's logits for these prompts."""
    absent = [name for name in TENSORS if name not in probe]
    if absent:
        return [f"holds no {', '.join(absent)}; an earlier version of hagane wrote it, or it is no probe"]
    if not prompts.prompts:
        return ["dataset/prompts.json holds no prompt, so nothing can be compared"]
    lengths = probe["lengths"].tolist()
    if len(lengths) != len(prompts.prompts):
        return [f"holds {len(lengths)} prompts, the data has {len(prompts.prompts)}"]
    if sum(lengths) != len(probe["tokens"]):
        return [f"holds {len(probe['tokens'])} tokens, its lengths say {sum(lengths)}"]
    parts = probe["tokens"].split(lengths)
    problems = [
        problem
        for number, (tokens_T, prompt) in enumerate(zip(parts, prompts.prompts, strict=True), 1)
        if (problem := _prompt_problem(number, tokens_T.tolist(), prompt)) is not None
    ]
    return problems or _logits_problems(probe["logits"], num_positions(prompts))


def num_positions(prompts: Prompts) -> int:
    """K."""
    return sum(_num_rows(prompt) for prompt in prompts.prompts)


def turn_ends(prompts: Prompts) -> Iterator[TurnEnd]:
    """Where a prompt that passed through the model ends with an end token that has a row before it."""
    row = 0
    for index, prompt in enumerate(prompts.prompts):
        row += _num_rows(prompt)
        if prompt.ends_turn and _num_rows(prompt) > 1:
            yield TurnEnd(prompt=index, row=row - 2, token=prompt.probe_ids[-1])


def _num_rows(prompt: Prompt) -> int:
    return min(prompt.probe_length, PROBE_POSITIONS)


def _prompt_problem(number: int, token_ids: list[int], prompt: Prompt) -> str | None:
    expected = list(prompt.probe_ids)
    if len(token_ids) != len(expected):
        return f"prompt {number} has {len(token_ids)} tokens, the data's has {len(expected)}"
    pairs = enumerate(zip(token_ids, expected, strict=True))
    differing = [(place, found, right) for place, (found, right) in pairs if found != right]
    if not differing:
        return None
    place, found, right = differing[0]
    return f"prompt {number} has token {found} at position {place}, the data's has {right}"


def _logits_problems(logits_KV: torch.Tensor, positions: int) -> list[str]:
    if logits_KV.ndim != 2 or len(logits_KV) != positions:
        return [f"its logits have shape {list(logits_KV.shape)}, must have {positions} rows"]
    if not torch.isfinite(logits_KV).all():
        return ["its logits are not finite: the trained model is broken, or the file is"]
    if float(logits_KV.std()) == 0:
        return ["its logits are all equal, so any model would pass"]
    return []
