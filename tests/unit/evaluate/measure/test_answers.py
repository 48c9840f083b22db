import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from components.evaluate.measure.answers import answer, end_tokens, load_tokenizer
from components.shared.errors import DataError
from tests.support.tiny_models import END, make_model, make_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture
def tokenizer(folder: Path):
    return load_tokenizer(folder, "model")


def greedy(model, tokenizer, question: str, num_tokens: int) -> list[int]:
    """The definition: the likeliest next token, again and again, without a cache."""
    messages = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    for _ in range(num_tokens):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
    return ids[-num_tokens:]


def test_answer_is_the_likeliest_continuation_of_the_chat_prompt(model, tokenizer):
    expected = tokenizer.decode(greedy(model, tokenizer, "41の次は?", 8), skip_special_tokens=True).strip()
    assert answer(model, tokenizer, "41の次は?", answer_tokens=8) == expected
    assert expected


def test_answer_is_to_the_prompt_that_the_templates_arguments_write(model, tokenizer):
    question = "What is 12 plus 7?"
    tokenizer.chat_template = "{% if brief %}Short: {% endif %}{{ messages[0]['content'] }}"
    tokens = model.generate(**tokenizer(f"Short: {question}", add_special_tokens=False, return_tensors="pt"), max_new_tokens=8)
    plain = answer(model, tokenizer, question, answer_tokens=8)
    brief = answer(model, tokenizer, question, answer_tokens=8, template_args={"brief": True})
    assert brief == tokenizer.decode(tokens[0][-8:], skip_special_tokens=True).strip()
    assert brief != plain


def test_answer_ends_at_the_end_token_which_is_not_shown(model, tokenizer):
    third = greedy(model, tokenizer, "What is 12 plus 7?", 3)[2]
    model.generation_config.eos_token_id = third
    tokens = greedy(model, tokenizer, "What is 12 plus 7?", 8)
    expected = tokens[: tokens.index(third) + 1]
    assert answer(model, tokenizer, "What is 12 plus 7?", answer_tokens=8) == tokenizer.decode(expected).strip()


def test_answer_ends_at_the_tokenizers_end_token_where_the_model_names_none(model, tokenizer):
    tokens = greedy(model, tokenizer, "What is 12 plus 7?", 8)
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(tokens[2])
    expected = tokens[: tokens.index(tokens[2]) + 1]
    assert answer(model, tokenizer, "What is 12 plus 7?", answer_tokens=8) == tokenizer.decode(expected).strip()


def test_answer_ends_with_the_tokenizers_and_the_models_end_tokens(model, tokenizer):
    model.generation_config.eos_token_id = [7, 9]
    assert end_tokens(model, tokenizer) == sorted({7, 9, tokenizer.convert_tokens_to_ids(END)})
    model.generation_config.eos_token_id = None
    assert end_tokens(model, tokenizer) == [tokenizer.eos_token_id]


def test_template_of_the_spec_replaces_the_models(folder: Path, tmp_path: Path):
    template = tmp_path / "plain.jinja"
    template.write_text("Q: {{ messages[0]['content'] }} A:")
    rendered = load_tokenizer(folder, str(template)).apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False)
    assert rendered == "Q: Why? A:"


def test_missing_template_is_a_data_error(folder: Path):
    with pytest.raises(DataError, match=r"data.chat_template: 'nowhere.jinja' cannot be read: No such file"):
        load_tokenizer(folder, "nowhere.jinja")


def test_a_tokenizer_of_a_class_that_transformers_lacks_is_read_without_its_code_and_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tokenizer(tmp_path)
    known = load_tokenizer(tmp_path, "model")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    foreign = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, **foreign}))
    (tmp_path / "evil.py").write_text("raise SystemExit('code of the model was run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    assert load_tokenizer(tmp_path, "model")("12 plus 7")["input_ids"] == known("12 plus 7")["input_ids"]


def test_without_a_chat_template_the_answer_continues_the_question(model, tokenizer):
    tokenizer.chat_template = None
    tokens = model.generate(**tokenizer("41の次は", return_tensors="pt"), max_new_tokens=8, do_sample=False)
    expected = tokenizer.decode(tokens[0][len(tokenizer("41の次は")["input_ids"]) :], skip_special_tokens=True).strip()
    assert answer(model, tokenizer, "41の次は", answer_tokens=8) == expected
