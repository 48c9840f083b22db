import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.prepare_dataset.packing.rows import NOT_TRAINED, labels, write_rows
from components.prepare_dataset.readers.bad_records import bad_record_lines
from components.prepare_dataset.samples.tokens import STARTS_INSIDE, Encoder, encode, load_encoder
from components.prepare_dataset.templates.process import BoundedTemplate
from components.shared.errors import ModelError
from tests.support.tiny_models import BOS, END, make_tokenizer
from tests.unit.prepare_dataset.chat_templates import HISTORY_WITHOUT_REASONING
from tests.unit.prepare_dataset.conftest import NOW, conversation, encoded_samples
from tests.unit.prepare_dataset.sentencepiece import like_a_japanese_sentencepiece, like_llama_2

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.strip)


def _with(encoder: Encoder, template: str) -> Encoder:
    tokens = encoder.template.special_tokens
    compiled = BoundedTemplate("t.jinja", template, tokens, NOW)
    return Encoder(
        encoder.tokenizer, encoder.tokenizer_file, compiled, encoder.end_ids, encoder.vocab_size
    )


@settings(max_examples=100, deadline=None)
@given(turns=st.lists(WORDS, min_size=2, max_size=7), system=st.none() | WORDS)
def test_labels_are_exactly_the_answers_and_their_end_tokens(
    encoder: Encoder, turns: list[str], system: str | None
) -> None:
    (tokens,), problems = encode(encoder, [conversation(*turns, system=system)])
    assert not problems
    decoded = [
        encoder.tokenizer.decode(list(tokens.ids[a:b]), skip_special_tokens=False)
        for a, b in tokens.trained
    ]
    assert decoded == [answer + END for answer in turns[1::2]]
    assert [label for label in labels(tokens.ids, tokens.trained) if label != NOT_TRAINED] == [
        label for start, end in tokens.trained for label in tokens.ids[start:end]
    ]


@settings(deadline=None)
@given(turns=st.lists(WORDS, min_size=2, max_size=4))
def test_a_conversation_begins_with_one_bos_and_decodes_to_its_text_up_to_its_last_answer(
    encoder: Encoder, turns: list[str]
) -> None:
    talk = conversation(*turns)
    answered = talk.messages[: len(turns) // 2 * 2]
    (tokens,), _ = encode(encoder, [talk])
    assert [encoder.tokenizer.id_to_token(token) for token in tokens.ids].count(BOS) == 1
    assert encoder.tokenizer.decode(
        list(tokens.ids), skip_special_tokens=False
    ) == encoder.template.render(answered)


@pytest.mark.parametrize("kind", [like_llama_2, like_a_japanese_sentencepiece])
def test_answers_are_found_in_the_tokens_of_every_kind_of_tokenizer(
    tmp_path: Path, kind: Callable[[Path], Encoder]
) -> None:
    encoder = kind(tmp_path)
    (tokens,), problems = encode(
        encoder, [conversation("What is 12?", "12 is 12.", "ﾊﾝｶｸは？", "青です。")]
    )
    decoded = [
        encoder.tokenizer.decode(list(tokens.ids[a:b]), skip_special_tokens=False).strip()
        for a, b in tokens.trained
    ]
    assert not problems
    assert decoded == ["12 is 12. </s>", "青です。 </s>"]
    assert STARTS_INSIDE not in tokens.notes


def test_an_answer_that_begins_inside_a_token_is_trained_on_with_it_and_noted(
    encoder: Encoder,
) -> None:
    ends_in_space = _with(
        encoder,
        "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
    )
    (tokens,), problems = encode(ends_in_space, [conversation("q", "the answer")])
    (start, end), *_ = tokens.trained
    assert not problems
    assert STARTS_INSIDE in tokens.notes
    assert (
        encoder.tokenizer.decode(list(tokens.ids[start:end]), skip_special_tokens=False)
        == f" the answer{END}"
    )


ENDLESS = "{% for m in messages %}{{ m.content + '\n' }}{% endfor %}"


def test_turns_without_an_end_token_are_trained_with_eos_behind_each(encoder: Encoder) -> None:
    encoded, problems = encode(_with(encoder, ENDLESS), [conversation("q", "a", "r", "b")])
    decoded = [
        encoder.tokenizer.decode(list(tokens.ids), skip_special_tokens=False) for tokens in encoded
    ]
    assert not problems
    assert decoded == [f"q\na{END}", f"q\na\nr\nb{END}"]


def test_turns_without_an_end_token_are_refused_once_with_their_number(encoder: Encoder) -> None:
    template = BoundedTemplate("t.jinja", ENDLESS, {}, NOW)
    endless = dataclasses.replace(encoder, template=template)
    encoded, problems = encode(
        endless, [conversation("q", "a", where=f"x:{line}") for line in (1, 2, 3)]
    )
    (line,) = bad_record_lines(problems)
    assert encoded == []
    assert line.startswith("x:1: t.jinja ends assistant turns without an end-of-turn token")
    assert line.endswith("(the same in 2 others, next x:2)")


def test_a_token_that_the_model_has_no_embedding_for_is_refused(encoder: Encoder) -> None:
    small = Encoder(
        encoder.tokenizer, encoder.tokenizer_file, encoder.template, encoder.end_ids, vocab_size=300
    )
    _, problems = encode(small, [conversation("What is 12 plus 7?", "12 plus 7 is 19.")])
    assert "the model only 300 embeddings" in bad_record_lines(problems)[0]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_conversation_of_which_one_sample_is_bad_is_left_out_whole(
    encoder: Encoder, is_first: bool
) -> None:
    """Earlier reasoning is left out of the text of later turns, so that each answer is a sample of
    its own."""
    last = encoder.tokenizer.get_vocab_size() - 1
    words = [encoder.tokenizer.decode([last]), "r"]
    one, other = (
        f"<think>\n{word}\n</think>\n\na" for word in (words if is_first else words[::-1])
    )
    talks = [conversation("q", one, "s", other, where="a:1"), conversation("q", "a", where="a:2")]
    history = _with(encoder, HISTORY_WITHOUT_REASONING)
    samples, _ = encode(history, talks)
    assert [(each.source.where, last in each.ids) for each in samples] == [
        ("a:1", is_first),
        ("a:1", not is_first),
        ("a:2", False),
    ]
    left, problems = encode(dataclasses.replace(history, vocab_size=last), talks)
    assert [each.source.where for each in left] == ["a:2"]
    assert list(problems.values()) == [["a:1"]]


def test_truncation_and_padding_settings_of_a_tokenizer_file_are_not_obeyed(tmp_path: Path) -> None:
    file = make_tokenizer(tmp_path) / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["truncation"] = {
        "direction": "Right",
        "max_length": 8,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    file.write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 400}}')
    (tokens,), _ = encode(
        load_encoder(tmp_path, "model", now=NOW), [conversation("q", "a long answer")]
    )
    assert len(tokens.ids) > 8


def test_everything_wrong_with_a_model_folder_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "spiece.model").touch()
    with pytest.raises(ModelError) as raised:
        load_encoder(tmp_path, "nope.jinja", now=NOW)
    size, tokenizer, settings, template = raised.value.problems
    assert "vocab_size: found None" in size
    assert (
        "tokenizer.json: no such file (found spiece.model); a fast tokenizer is needed" in tokenizer
    )
    assert "tokenizer_config.json: no such file" in settings
    assert "no such file 'nope.jinja'" in template


def test_a_tokenizer_file_that_is_none_is_refused(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 400}')
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelError, match=r"tokenizer.json: is no tokenizer of tokenizers 0.23"):
        load_encoder(tmp_path, "model", now=NOW)


def test_an_older_models_special_tokens_map_names_the_tokens(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, chat_template="{{ eos_token }}")
    (tmp_path / "config.json").write_text('{"vocab_size": 400}')
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": BOS}}))
    assert load_encoder(tmp_path, "model", now=NOW).template.special_tokens["eos_token"] == BOS


def test_rows_on_disk_hold_their_conversations_side_by_side_without_padding(
    encoder: Encoder, tmp_path: Path
) -> None:
    encoded = encoded_samples(
        encoder,
        conversation("q", "a"),
        conversation("12たす7は？", "19です。"),
        conversation("x", "y z"),
    )
    write_rows(tmp_path / "rows.parquet", [(2, 0), (1,)], encoded, row_tokens=100)
    first, second = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert first["input_ids"] == [*encoded[2].ids, *encoded[0].ids]
    assert first["labels"] == [
        label for index in (2, 0) for label in labels(encoded[index].ids, encoded[index].trained)
    ]
    assert first["lengths"] == [len(encoded[2].ids), len(encoded[0].ids)]
    assert second["lengths"] == [len(second["input_ids"])] == [len(second["labels"])]
