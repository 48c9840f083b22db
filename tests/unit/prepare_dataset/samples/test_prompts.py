import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from components.export_adapter.verification.text_checks import template_problems, token_id_problems
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.texts import num_characters, tokens_conversation
from components.prepare_dataset.samples import prompts
from components.prepare_dataset.samples.prompts import NUM_CANDIDATES, chosen_conversations, spread, write_prompts
from components.prepare_dataset.samples.tokens import Encoder, encode
from components.prepare_dataset.source import Source, load_source
from components.shared.documents.prompts import PROBE_TOKENS, read_prompts
from components.shared.errors import DataError
from components.shared.spec.file import parse_spec
from tests.support.tiny_models import END, make_model, write_conversations
from tests.unit.prepare_dataset.chat_templates import ALL, EOS, RENAMED_ROLE, SPECIAL_TOKENS
from tests.unit.prepare_dataset.conftest import conversation, kept
from tests.unit.prepare_dataset.samples.test_samples import TALKS


@pytest.fixture
def source(model_folder: Path, tmp_path: Path) -> Source:
    train = write_conversations(tmp_path / "train.jsonl", 40)
    held_out = write_conversations(tmp_path / "held_out.jsonl", 30, seed=1)
    data = {"train": str(train), "held_out": str(held_out), "row_tokens": 256}
    spec = parse_spec({"name": "r", "store": str(tmp_path), "model": {"source": str(model_folder)}, "data": data})
    return load_source(spec, now=datetime(2026, 1, 1))


def test_prompts_are_four_held_out_conversations_of_different_length(source: Source, tmp_path: Path) -> None:
    write_prompts(source, tmp_path, row_tokens=256)
    found = read_prompts(tmp_path)
    lengths = [len(prompt.token_ids) for prompt in found.prompts]
    held_out = {tuple(message.content for message in each.messages) for each in source.records.held_out}
    assert len(lengths) == 4
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
    assert all(tuple(message["content"] for message in prompt.messages) in held_out for prompt in found.prompts)


def test_a_prompt_ends_at_the_end_token_of_its_last_turn(source: Source, tmp_path: Path) -> None:
    write_prompts(source, tmp_path, row_tokens=256)
    found, tokenizer = read_prompts(tmp_path), source.model.encoder.tokenizer
    assert found.end_token_ids == (tokenizer.token_to_id(END),)
    for prompt in found.prompts:
        assert prompt.ends_turn
        assert prompt.probe_length <= PROBE_TOKENS
        assert prompt.probe_ids[-1] in found.end_token_ids
        assert list(prompt.token_ids) == tokenizer.encode(prompt.text, add_special_tokens=False).ids


def test_conversations_longer_than_a_row_are_no_prompts(source: Source) -> None:
    records, encoder = source.records.held_out, source.model.encoder
    lengths = sorted(len(each.ids) for each in chosen_conversations(encoder, records, row_tokens=10_000))
    chosen = chosen_conversations(encoder, records, row_tokens=lengths[0])
    assert {len(each.ids) for each in chosen} == {lengths[0]}


def test_of_many_conversations_no_more_are_tokenised_than_are_chosen_from(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    records, encoder = source.records.train, source.model.encoder
    asked: list[int] = []

    def counted(encoder: Encoder, conversations: Sequence[Conversation]) -> Any:
        asked.append(len(conversations))
        return encode(encoder, conversations)

    monkeypatch.setattr(prompts, "encode", counted)
    monkeypatch.setattr(prompts, "spread", lambda items, most: list(items[-1:]) if most == NUM_CANDIDATES else list(items[:most]))
    (longest,), _ = encode(encoder, [max(records, key=num_characters)])
    assert len(chosen_conversations(encoder, records, row_tokens=len(longest.ids) - 1)) == 4
    assert asked == [1, 16]  # the candidate is too long, the first 16 are not


def test_prompts_of_rows_that_came_tokenised_are_chosen_beside_conversations(source: Source) -> None:
    row = tokens_conversation("a:1", [5, 6, 7], None, None)
    assert isinstance(row, Conversation)
    encoder, records = source.model.encoder, kept(conversation("q" * 300, "a"), row)
    chosen = chosen_conversations(encoder, records.of([0] * 30 + [1]), row_tokens=3)
    assert [list(each.ids) for each in chosen] == [[5, 6, 7]]
    assert len(chosen_conversations(encoder, records.of([0] * 30 + [1]), row_tokens=10_000)) == 2


def test_spread_takes_the_first_and_the_last() -> None:
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread(range(3), 4) == [0, 1, 2]


def test_a_dataset_of_an_earlier_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset/prompts.json: found no such file.* start it again under another name"):
        read_prompts(tmp_path)


@pytest.fixture(scope="module")
def many_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder whose tokenizer has the special tokens of all templates."""
    folder = make_model(tmp_path_factory.mktemp("model") / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True) for token in SPECIAL_TOKENS]})
    tokenizer.bos_token, tokenizer.eos_token = "<s>", EOS
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": len(tokenizer)}))
    return folder


@pytest.mark.parametrize("template", [text for text in ALL.values() if text != RENAMED_ROLE])
def test_prompts_of_each_kind_of_template_are_what_transformers_writes(many_tokens: Path, tmp_path: Path, template: str) -> None:
    (tmp_path / "template.jinja").write_text(template)
    lines = [json.dumps({"messages": turns}, ensure_ascii=False) for turns in TALKS.values()]
    (tmp_path / "train.jsonl").write_text("\n".join(lines * 2) + "\n", encoding="utf-8")
    data = {"train": str(tmp_path / "train.jsonl"), "held_out": str(tmp_path / "train.jsonl")}
    data |= {"chat_template": str(tmp_path / "template.jinja")}
    spec = parse_spec({"name": "r", "store": str(tmp_path), "model": {"source": str(many_tokens)}, "data": data})
    write_prompts(load_source(spec, now=datetime(2026, 1, 1)), tmp_path, row_tokens=1024)
    found, tokenizer = read_prompts(tmp_path), AutoTokenizer.from_pretrained(many_tokens)
    tokenizer.chat_template = found.chat_template
    assert len(found.prompts) == 4
    assert template not in (ALL["chatml"], ALL["marked"]) or any(prompt.messages for prompt in found.prompts)
    assert token_id_problems(tokenizer, found) == []
    assert template_problems(tokenizer, found) == []
