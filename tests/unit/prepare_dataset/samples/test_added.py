"""Texts that become tokens: their ids, what the data looks like with them, and what is refused."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from components.prepare_dataset.samples.added import Added, add_tokens
from components.prepare_dataset.samples.tokens import load_encoder
from components.shared.errors import ModelError
from components.shared.model.new_tokens import tokenizer_folder
from tests.support.tiny_models import BOS, make_tokenizer
from tests.unit.prepare_dataset.conftest import NOW
from tests.unit.prepare_dataset.sentencepiece import like_llama_2

TEXTS = ("<tool>", "鋼鉄")


def added(folder: Path, *texts: str) -> Added:
    return add_tokens(Tokenizer.from_file(str(folder / "tokenizer.json")), folder, texts)


def test_each_text_is_one_token_behind_all_others_wherever_it_stands(tmp_path: Path) -> None:
    made = added(make_tokenizer(tmp_path), *TEXTS)
    assert [each.token_id for each in made.new_tokens] == [400, 401]
    assert all(len(each.pieces) > 1 for each in made.new_tokens)
    tokens = made.tokenizer.encode("a<tool> 鋼鉄の", add_special_tokens=False).tokens
    assert [token for token in tokens if token in TEXTS] == list(TEXTS)
    ids = made.tokenizer.encode("x<tool>y鋼鉄", add_special_tokens=False).ids
    assert made.tokenizer.decode(ids) == "x<tool>y鋼鉄"


def test_a_tokenizer_of_another_kind_takes_them_too(tmp_path: Path) -> None:
    like_llama_2(tmp_path)
    made = added(tmp_path, *TEXTS)
    assert made.tokenizer.encode("a 鋼鉄", add_special_tokens=False).ids[-1] == (
        made.new_tokens[1].token_id
    )


def test_transformers_reads_the_same_tokens_from_the_files(tmp_path: Path) -> None:
    base = make_tokenizer(tmp_path / "base")
    made = added(base, *TEXTS)
    folder = tokenizer_folder(base, made.new_tokens, tmp_path / "grown")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "What is <tool>? 鋼鉄です。"
    assert (
        tokenizer.encode(text, add_special_tokens=False)
        == made.tokenizer.encode(text, add_special_tokens=False).ids
    )
    ids = tokenizer.encode("<tool>", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool>"
    assert tokenizer_folder(base, (), tmp_path / "none") == base


def test_a_text_that_is_a_token_already_is_refused_with_its_id(tmp_path: Path) -> None:
    base = make_tokenizer(tmp_path)
    with pytest.raises(ModelError) as caught:
        added(base, "the", "<tool>", BOS)
    assert caught.value.problems == (
        "data.new_tokens: 'the' is a token of the model already (id 290). Fix: remove it",
        "data.new_tokens: '<|bos|>' is a token of the model already (id 0). Fix: remove it",
    )


@pytest.mark.parametrize(("vocab_size", "rows"), [(400, 402), (512, 512)])
def test_the_model_grows_only_beyond_the_rows_that_it_has(
    tmp_path: Path, vocab_size: int, rows: int
) -> None:
    make_tokenizer(tmp_path)
    config = {"model_type": "llama", "vocab_size": vocab_size}
    (tmp_path / "config.json").write_text(json.dumps(config))
    encoder = load_encoder(tmp_path, "model", now=NOW, new_tokens=TEXTS)
    assert encoder.vocab_size == rows
    assert encoder.end_ids == load_encoder(tmp_path, "model", now=NOW).end_ids
