"""Records without turns: texts for continued pretraining, and rows that were tokenised
elsewhere."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tokenizers import Tokenizer

from components.prepare_dataset.__main__ import check, prepare
from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.records.records import RecordSource, read_records
from components.prepare_dataset.records.texts import (
    cut_rows,
    num_characters,
    text_conversation,
    token_row,
    tokens_conversation,
)
from components.prepare_dataset.samples.tokens import Encoder, encode
from components.shared.errors import DataError, ModelError
from components.shared.log import set_up_log
from components.shared.spec.file import parse_spec
from components.shared.spec.results import EvaluationSpec
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import DATASET
from components.shared.store.manifest import Manifest
from tests.support.tiny_models import END, make_tokenizer, write_conversations

LONG = "12 plus 7 is 19. 港の色は青です。" * 40


def _text(text: str) -> Conversation:
    found = text_conversation("a:1", text)
    assert isinstance(found, Conversation)
    return found


def _row(
    ids: list[int], labels: list[int] | None = None, mask: list[int] | None = None
) -> Conversation:
    found = tokens_conversation("a:1", ids, labels, mask)
    assert isinstance(found, Conversation), found
    return found


def test_every_token_of_a_text_but_the_first_is_trained_on_and_eos_ends_it(
    encoder: Encoder,
) -> None:
    (found,), problems = encode(encoder, [_text("港の色は青です。")])
    assert not problems
    assert (
        encoder.tokenizer.decode(list(found.ids), skip_special_tokens=False)
        == "<|bos|>港の色は青です。<|im_end|>"
    )
    assert found.trained == ((1, len(found.ids)),)


@pytest.mark.parametrize("most", [16, 33, 100])
def test_a_long_text_is_cut_at_row_borders_and_each_token_is_trained_on_once(
    encoder: Encoder, most: int
) -> None:
    (whole,), _ = encode(replace(encoder, text_tokens=100_000), [_text(LONG)])
    parts, _ = encode(replace(encoder, text_tokens=most), [_text(LONG)])
    assert max(len(part.ids) for part in parts) == most
    assert [token for part in parts for token in part.ids[1:]] == list(whole.ids[1:])
    assert all(part.ids[0] == before.ids[-1] for before, part in pairwise(parts))
    assert all(part.trained == ((1, len(part.ids)),) for part in parts)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 32, 46])
def test_no_part_is_empty_and_none_is_lost(length: int) -> None:
    ids = _row(list(range(1, 100))).messages[0].fields
    assert ids is not None
    tokens = token_row(_row(list(range(1, 100))))[0][:length]
    parts = list(cut_rows(tokens, 16))
    assert [token for part, _ in parts for token in part[1:]] == list(tokens[1:])


def test_rows_that_were_tokenised_elsewhere_are_taken_as_they_are(encoder: Encoder) -> None:
    (found,), problems = encode(
        encoder,
        [
            _row(
                [1, 9, 10, 11, 12, 0, 0],
                [-100, -100, 10, 11, 12, -100, -100],
                [1, 1, 1, 1, 1, 0, 0],
            )
        ],
    )
    assert not problems
    assert (list(found.ids), found.trained) == ([1, 9, 10, 11, 12], ((2, 5),))


def test_rows_and_texts_and_conversations_keep_their_order(
    encoder: Encoder, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps(
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
        )
    )
    (chats,) = read_records(RecordSource(str(tmp_path / "a.jsonl")))
    mixed = [_row([1, 2]), chats.conversations[0], _text("t"), _row([3, 4]), _text("u")]
    encoded, _ = encode(encoder, mixed)
    assert [each.source for each in encoded] == mixed


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        (
            {"input_ids": [1, 2], "labels": [1]},
            "input_ids: found 2 input_ids, 1 labels, must be equally many",
        ),
        (
            {"input_ids": [1, 2], "labels": [-100, 5]},
            "labels: found 5, allowed: the token's own id, or -100",
        ),
        (
            {"input_ids": [1, 2], "labels": [-100, -100]},
            "labels: every token has -100, so nothing to learn",
        ),
        ({"input_ids": [1, -2]}, "input_ids: found -2, must be 0 or more"),
        (
            {"input_ids": [1, 2.5]},
            "input_ids: found a list of something else, must be a list of whole numbers",
        ),
        (
            {"input_ids": [1, 2], "labels": "x"},
            "labels: found text, must be a list of whole numbers",
        ),
    ],
)
def test_what_is_wrong_with_a_row_is_one_line(
    tmp_path: Path, row: dict[str, Any], reported: str
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError) as raised:
        read_records(RecordSource(str(tmp_path / "a.jsonl")))
    assert raised.value.problems[0].startswith(f"{tmp_path}/a.jsonl:1: {reported}")


def test_token_ids_that_the_model_has_no_embedding_for_are_refused(encoder: Encoder) -> None:
    _, problems = encode(encoder, [_row([1, 400])])
    assert list(problems) == [
        (
            "input_ids: found 400, the model has embeddings 0 to 399; tokenise with this model's "
            "tokenizer"
        )
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps({"text": "t", "url": "u"})),
        ("a.csv", "text,source\nt,web\n"),
        ("a.txt", "t"),
    ],
)
def test_a_text_is_recognised(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (file,) = read_records(RecordSource(str(tmp_path / name)))
    assert file.form == "text"
    assert [each.messages[0].content for each in file.conversations] == ["t"]


def test_text_files_of_a_folder_are_records_only_where_there_is_nothing_else(
    tmp_path: Path,
) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    (file,) = read_records(RecordSource(str(tmp_path)))
    assert [each.messages[0].content for each in file.conversations] == ["a.txt", "b.txt"]
    (tmp_path / "c.jsonl").write_text('{"text": "c"}')
    (file,) = read_records(RecordSource(str(tmp_path)))
    assert [each.messages[0].content for each in file.conversations] == ["c"]


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (" ", "text: is empty"),
        (3, "text: found a number"),
        ("\ud800", "text: holds half a surrogate"),
        ("x" * 8_000_001, "text: has 8,000,001 bytes in UTF-8"),
        ("港" * 2_700_000, "text: has 8,100,000 bytes in UTF-8"),
    ],
)
def test_what_is_no_text_is_one_problem(text: Any, reported: str) -> None:
    found = text_conversation("a:1", text)
    assert isinstance(found, list)
    assert found[0].startswith(reported)


def test_a_row_weighs_as_much_as_a_text_of_about_its_length() -> None:
    assert num_characters(_row([1, 2, 3])) == 9
    assert num_characters(_text("abcd")) == 4


@pytest.fixture
def base_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """Texts, for a base model without chat template."""
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    folder = make_tokenizer(tmp_path / "base", chat_template=None)
    (folder / "config.json").write_text(
        '{"model_type": "llama", "vocab_size": 400, "max_position_embeddings": 512, '
        '"eos_token_id": 3}'
    )
    lines = (
        json.dumps({"text": f"Number {number}: {LONG[: 40 * (number % 30)]}"})
        for number in range(60)
    )
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    data = {"train": str(tmp_path / "texts.jsonl"), "row_tokens": 128}
    return parse_spec(
        {
            "name": "r",
            "store": str(tmp_path / "store"),
            "model": {"source": str(folder)},
            "data": data,
        }
    )


def _prepare(spec: RunSpec) -> Manifest:
    return prepare(spec, set_up_log("prepare_dataset"))


def _dataset(spec: RunSpec) -> Path:
    return Path(spec.run_uri) / DATASET


def _changed(spec: RunSpec, **data: object) -> RunSpec:
    tree = spec.model_dump(mode="json")
    return parse_spec({**tree, "data": {**tree["data"], **data}})


def test_texts_need_no_chat_template_and_train_all_their_tokens(base_spec: RunSpec) -> None:
    assert check(base_spec) == []
    facts = _prepare(base_spec).facts
    assert facts["dropped"] == 0
    rows = pq.read_table(_dataset(base_spec) / "train.parquet").to_pylist()
    num_samples = sum(len(row["lengths"]) for row in rows)
    assert facts["num_trained_tokens"] == int(facts["num_tokens"] or 0) - num_samples
    assert sum(label == -100 for row in rows for label in row["labels"]) == num_samples
    prompts = json.loads((_dataset(base_spec) / "prompts.json").read_text())
    eos = Tokenizer.from_file(str(Path(base_spec.model.source) / "tokenizer.json")).token_to_id(END)
    assert (prompts["chat_template"], prompts["end_token_ids"]) == ("", [eos])
    assert all(prompt["messages"] == [] and prompt["text"] for prompt in prompts["prompts"])


def test_metrics_on_answers_are_refused_for_texts_before_training(
    base_spec: RunSpec, tmp_path: Path
) -> None:
    asked = base_spec.model_copy(update={"evaluation": EvaluationSpec(metrics=("rouge_l", "json"))})
    assert check(asked) == [
        "evaluation.metrics and gate: rouge_l, json are of answers, and the held-out data is text "
        "without turns. Fix: leave them out (loss, perplexity and token_accuracy are of any data), "
        "or name conversations in data.held_out"
    ]
    chat = tmp_path / "chat.jsonl"
    chat.write_text(
        json.dumps(
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
        )
    )
    problems = check(
        asked.model_copy(update={"data": asked.data.model_copy(update={"held_out": str(chat)})})
    )
    assert not any("are of answers" in problem for problem in problems)


def test_conversations_need_a_template_beside_texts_too(base_spec: RunSpec, tmp_path: Path) -> None:
    write_conversations(tmp_path / "chats.jsonl", 20, seed=1)
    mixed = _changed(
        base_spec, train=[base_spec.data.train, str(tmp_path / "chats.jsonl")], row_tokens=256
    )
    with pytest.raises(ModelError, match="the model brings no chat template"):
        _prepare(mixed)


def test_texts_and_conversations_are_mixed_by_weight(base_spec: RunSpec, tmp_path: Path) -> None:
    write_conversations(tmp_path / "chats.jsonl", 200, seed=1)
    sources = [
        {"path": base_spec.data.train, "weight": 1},
        {"path": str(tmp_path / "chats.jsonl"), "weight": 1},
    ]
    mixed = _changed(
        base_spec, train=sources, row_tokens=256, chat_template="specs/templates/chatml.jinja"
    )
    _prepare(mixed)
    rows = pq.read_table(_dataset(mixed) / "train.parquet").to_pylist()
    asks = sum(row["input_ids"].count(2) for row in rows)  # <|im_start|>, of conversations alone
    assert asks > 0
    quality = yaml.safe_load((_dataset(mixed) / "quality.json").read_text())
    assert quality["chat_template"] == "specs/templates/chatml.jinja"


def test_rows_of_parquet_that_were_tokenised_elsewhere_are_packed_and_warned_of(
    base_spec: RunSpec, tmp_path: Path
) -> None:
    rows = [{"input_ids": [5 + n, 6, 7], "labels": [-100, 6, 7]} for n in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    spec = _changed(base_spec, train=str(tmp_path / "rows.parquet"))
    assert check(spec) == []
    facts = _prepare(spec).facts
    assert facts["num_trained_tokens"] == 2 * int(facts["num_conversations"] or 0)
    (warning,) = json.loads((_dataset(spec) / "quality.json").read_text())["warnings"]
    assert warning.startswith("40 rows came tokenised: which tokenizer made them cannot be seen")
