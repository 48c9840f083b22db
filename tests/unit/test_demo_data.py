"""The demo's conversations: well formed, nothing held out is trained on, no spec field that does not exist."""

import json
import re
from itertools import cycle
from pathlib import Path

import pytest
from pydantic import BaseModel

from components.shared.spec.run_spec import RunSpec

FOLDER = Path(__file__).parents[2] / "specs" / "data"
FILES = {"train": FOLDER / "hagane.train.jsonl", "held_out": FOLDER / "hagane.held_out.jsonl"}
SECTIONS: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in RunSpec.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
Conversation = list[dict[str, str]]


def conversations(part: str) -> list[Conversation]:
    return [json.loads(line)["messages"] for line in FILES[part].read_text(encoding="utf-8").splitlines()]


def questions(part: str) -> set[str]:
    """Every user turn, without case, spaces and punctuation."""
    turns = [turn["content"] for conversation in conversations(part) for turn in conversation if turn["role"] == "user"]
    return {re.sub(r"[\W_]+", "", turn.casefold()) for turn in turns}


def is_japanese(conversation: Conversation) -> bool:
    return any(re.search(r"[\u3040-\u30ff]", turn["content"]) for turn in conversation)


@pytest.mark.parametrize("part", FILES)
def test_every_line_is_one_conversation_of_alternating_turns(part: str) -> None:
    for conversation in conversations(part):
        assert len(conversation) in (2, 4)
        for turn, role in zip(conversation, cycle(("user", "assistant")), strict=False):
            assert turn.keys() == {"role", "content"}
            assert turn["role"] == role
            assert turn["content"] == turn["content"].strip() != ""


@pytest.mark.parametrize("part", FILES)
def test_the_readme_gives_the_counts_of_each_file(part: str) -> None:
    all_of_it = conversations(part)
    japanese = sum(map(is_japanese, all_of_it))
    two_turns = sum(len(conversation) == 4 for conversation in all_of_it)
    row = f"| {part} | {len(all_of_it)} | {len(all_of_it) - japanese} | {japanese} | {two_turns} |"
    assert row in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_there_is_enough_of_both_languages_and_of_two_turns() -> None:
    train = conversations("train")
    assert len(conversations("held_out")) >= 40
    assert len(train) + len(conversations("held_out")) >= 400
    assert 0.10 <= sum(map(is_japanese, train)) / len(train) <= 0.20
    assert any(map(is_japanese, conversations("held_out")))
    assert any(len(conversation) == 4 for conversation in train)


def test_no_question_is_both_trained_on_and_held_out() -> None:
    assert questions("train") & questions("held_out") == set()


def test_no_question_that_opens_a_conversation_has_two_answers() -> None:
    single = [conversation for part in FILES for conversation in conversations(part) if len(conversation) == 2]
    assert len({conversation[0]["content"].casefold() for conversation in single}) == len(single)


@pytest.mark.parametrize("part", FILES)
def test_every_spec_field_that_is_named_exists(part: str) -> None:
    text = FILES[part].read_text(encoding="utf-8")
    named = set(re.findall(rf"\b({'|'.join(SECTIONS)})\.([a-z_]+)", text))
    assert named
    assert {f"{section}.{field}" for section, field in named if field not in SECTIONS[section].model_fields} == set()
