"""Tokenizers that transformers 5 builds from code, made small: their tokenizer.json says otherwise."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from components.evaluate import same_tokens
from components.shared.documents.tokenizer_sample import TOKENIZER_SAMPLE, SampleText, TokenizerSample
from components.shared.errors import DataError, ModelError
from components.train.loop.tokens import check_template, check_tokens
from tests.support.tiny_models import make_tokenizer, write_conversations
from tests.support.trained_run import made_prompts

TEXTS = ("What is 12?", "<s>[INST] 12 [/INST] \uff8a\uff9d\uff76\uff78</s>")


def _like_open_calm(folder: Path, tokenizer_class: str) -> Path:
    """Byte-level BPE after NFKC, which GPTNeoXTokenizer leaves out."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return _saved(tokenizer, folder, tokenizer_class)


def _like_llama_2(folder: Path, tokenizer_class: str) -> Path:
    """BPE with a word mark put before each piece of text, which LlamaTokenizer does otherwise behind special tokens."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False))
    return _saved(tokenizer, folder, tokenizer_class)


def _saved(tokenizer: Tokenizer, folder: Path, tokenizer_class: str) -> Path:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<s>", "</s>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": tokenizer_class, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    encoded = tokenizer.encode_batch(list(TEXTS), add_special_tokens=False)
    texts = tuple(SampleText(text=text, ids=tuple(each.ids)) for text, each in zip(TEXTS, encoded, strict=True))
    sample = TokenizerSample(tokenizer_class=tokenizer_class, texts=texts)
    (folder / TOKENIZER_SAMPLE).write_text(sample.model_dump_json())
    return folder


@pytest.mark.parametrize("check", [check_tokens, same_tokens.check_tokens], ids=["train", "evaluate"])
@pytest.mark.parametrize(("make", "built"), [(_like_open_calm, "GPTNeoXTokenizerFast"), (_like_llama_2, "LlamaTokenizer")])
def test_a_tokenizer_that_is_served_with_other_tokens_is_refused(tmp_path: Path, make, built: str, check) -> None:
    folder = make(tmp_path, built)
    with pytest.raises(ModelError) as raised:
        check(folder, folder)
    (problem,) = raised.value.problems
    assert problem.startswith(f"{folder}/tokenizer.json: AutoTokenizer ({built}) gives other tokens than this file")
    assert repr(TEXTS[1]) in problem
    assert "tokenizer_class: PreTrainedTokenizerFast" in problem


@pytest.mark.parametrize("make", [_like_open_calm, _like_llama_2])
def test_with_the_class_that_the_message_names_the_tokens_are_the_same(tmp_path: Path, make) -> None:
    from transformers import AutoTokenizer

    folder = make(tmp_path, "PreTrainedTokenizerFast")
    check_tokens(folder, folder)
    sample = TokenizerSample.model_validate_json((folder / TOKENIZER_SAMPLE).read_bytes())
    theirs = AutoTokenizer.from_pretrained(folder)
    assert [tuple(theirs.encode(each.text, add_special_tokens=False)) for each in sample.texts] == [each.ids for each in sample.texts]


FOREIGN = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]}}


def _with_settings(folder: Path, **changed: object) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@pytest.mark.parametrize("check", [check_tokens, same_tokens.check_tokens], ids=["train", "evaluate"])
@pytest.mark.parametrize("model_type", ["llama", "deepseek_v3"])
def test_a_class_that_only_the_models_code_has_is_read_by_its_file(tmp_path: Path, model_type: str, check) -> None:
    folder = _like_open_calm(tmp_path, "EvilTokenizer")
    _with_settings(folder, **FOREIGN)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    check(folder, folder)


@pytest.mark.parametrize("check", [check_tokens, same_tokens.check_tokens], ids=["train", "evaluate"])
def test_a_class_that_cannot_be_loaded_is_one_line(tmp_path: Path, check) -> None:
    folder = _like_open_calm(tmp_path, "BertJapaneseTokenizer")
    with pytest.raises(ModelError) as raised:
        check(folder, folder)
    (problem,) = raised.value.problems
    assert problem.startswith(f"{folder}/tokenizer_config.json: tokenizer_class: AutoTokenizer cannot load it: ")
    assert "set tokenizer_class: PreTrainedTokenizerFast" in problem
    assert "\n" not in problem


def test_a_template_that_transformers_renders_as_the_dataset_was_written_passes(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "model")
    check_template(folder, made_prompts(folder, write_conversations(tmp_path / "all.jsonl", 24)))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"chat_template": "{{ messages[0]['content'] }}"}, "writes 4 of 4 prompts of the dataset differently"),
        ({"template_args": {"add_generation_prompt": True}}, "writes 4 of 4 prompts of the dataset differently"),
        ({"template_args": {"conversation": "x"}}, "cannot render it: "),
    ],
)
def test_a_template_that_transformers_renders_otherwise_is_refused_before_training(tmp_path: Path, changed: dict, told: str) -> None:
    folder = make_tokenizer(tmp_path / "model")
    prompts = made_prompts(folder, write_conversations(tmp_path / "all.jsonl", 24))
    with pytest.raises(ModelError) as raised:
        check_template(folder, prompts.model_copy(update=changed))
    (problem,) = raised.value.problems
    assert problem.startswith("data.chat_template: transformers, by which the model will be served, ")
    assert told in problem


@pytest.mark.parametrize("check", [check_tokens, same_tokens.check_tokens], ids=["train", "evaluate"])
def test_a_dataset_of_an_earlier_version_is_one_line(tmp_path: Path, check: Callable[[Path, Path], None]) -> None:
    with pytest.raises(DataError, match=rf"dataset/{TOKENIZER_SAMPLE}: found no such file.* start it again under another name"):
        check(tmp_path, tmp_path)
