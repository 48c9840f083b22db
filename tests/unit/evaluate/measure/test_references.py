from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.evaluate.measure.held_out import PackedRow
from components.evaluate.measure.references import answers_to, references_of
from tests.support.tiny_models import make_model

NOT = -100


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base"))


def test_the_last_trained_turn_of_each_conversation_is_the_reference(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    question, first, middle, last = (tokenizer.encode(text, add_special_tokens=False) for text in ("12?", "19", "41?", "42"))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    two_turns = [*question, *first, end, *middle, *last, end]
    labels = [NOT] * len(question) + [*first, end] + [NOT] * len(middle) + [*last, end]
    untrained, all_trained = [5, 6], [7, 8, 9]
    row = PackedRow(
        [*two_turns, *untrained, *all_trained], [*labels, NOT, NOT, *all_trained], [len(two_turns), len(untrained), len(all_trained)]
    )
    (found,) = references_of([row], tokenizer, count=9)
    assert found.text == "42"
    assert found.prompt_ids == two_turns[: len(question) + len(first) + 1 + len(middle)]


def test_references_are_spread_over_all_conversations(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [PackedRow([index, 8, 9], [NOT, NOT, 9], [3]) for index in range(10)]
    assert [each.prompt_ids[0] for each in references_of(rows, tokenizer, count=3)] == [0, 3, 6]


def test_a_text_is_no_answer_to_its_first_token(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    text, chat = PackedRow([5, 6, 7], [NOT, 6, 7], [3]), PackedRow([5, 6, 7], [NOT, NOT, 7], [3])
    assert [each.prompt_ids for each in references_of([text, chat], tokenizer, count=9)] == [[5, 6]]


def test_a_batch_gives_the_answers_of_each_prompt_alone(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    prompts = [list(range(10, 10 + length)) for length in (3, 17, 8, 29, 5, 11, 2, 7, 13, 21)]
    batches: list[int] = []
    together = answers_to(model, tokenizer, prompts, answer_tokens=6, on_batch=batches.append)
    alone = []
    for prompt in prompts:
        made = model.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=6)[0, len(prompt) :]
        alone.append(tokenizer.decode(made, skip_special_tokens=True).strip())
    assert together == alone
    assert batches == [8, 2]
