"""Held-out rows -> prompts with the data's own last turn, and a model's answers to them, generated
in batches.

The prompt is what stands before the last trained turn, token by token as in training: no template
is needed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from components.evaluate.measure.answers import end_tokens
from components.evaluate.measure.held_out import NOT_TRAINED, PackedRow

BATCH = 8
"""Prompts that are answered together: each takes the memory of its own cache."""


@dataclass(frozen=True)
class Reference:
    """A held-out conversation up to its last trained turn, and that turn."""

    prompt_ids: list[int]
    text: str


def references_of(rows: Sequence[PackedRow], tokenizer: Any, *, count: int) -> list[Reference]:
    """Of at most `count` conversations, as far apart as can be. One that begins with its last turn
    has no prompt, and is left out; so is a text, of which only the first token is not trained
    on."""
    found = [pair for row in rows for pair in _last_turns(row)]
    if count >= len(found):
        chosen = found
    else:
        chosen = [found[index * len(found) // count] for index in range(count)]
    return [
        Reference(prompt, tokenizer.decode(turn, skip_special_tokens=True).strip())
        for prompt, turn in chosen
    ]


def _last_turns(row: PackedRow) -> Iterator[tuple[list[int], list[int]]]:
    """(token ids before the last trained turn, token ids of it) of each conversation of the row."""
    start = 0
    for length in row.lengths:
        ids, labels = row.input_ids[start : start + length], row.labels[start : start + length]
        start += length
        trained = [place for place, label in enumerate(labels) if label != NOT_TRAINED]
        if not trained:
            continue
        end = trained[-1] + 1
        begin = max((place + 1 for place in range(end) if labels[place] == NOT_TRAINED), default=0)
        if begin > 1:
            yield ids[:begin], ids[begin:end]


def answers_to(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    answer_tokens: int,
    on_batch: Callable[[int], None],
) -> list[str]:
    """The model's greedy answer to each prompt. `on_batch` is called with the number of prompts of
    each batch."""
    answers: list[str] = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        answers += _answer_batch(model, tokenizer, batch, answer_tokens)
        on_batch(len(batch))
    return answers


@torch.inference_mode()
def _answer_batch(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], answer_tokens: int
) -> list[str]:
    """Shorter prompts are padded on the left, so that all answers begin at the same place."""
    ends = end_tokens(model, tokenizer)
    if tokenizer.pad_token_id is not None:
        padding = tokenizer.pad_token_id
    else:
        padding = ends[0]
    longest = max(len(prompt) for prompt in prompts)
    ids_BT = torch.tensor([[padding] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask_BT = torch.tensor(
        [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    )
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=answer_tokens, eos_token_id=ends, pad_token_id=padding
    )
    tokens_BT = model.generate(
        input_ids=ids_BT.to(model.device),
        attention_mask=mask_BT.to(model.device),
        generation_config=greedy,
    )
    return [
        tokenizer.decode(tokens_T[longest:], skip_special_tokens=True).strip()
        for tokens_T in tokens_BT
    ]
