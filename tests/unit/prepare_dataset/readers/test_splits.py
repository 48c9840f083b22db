import pytest

from components.prepare_dataset.readers.splits import of_split, split_of
from components.shared.errors import DataError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("train/a.jsonl", "train"),
        ("my_training_set.jsonl", "train"),
        ("validation.csv", "validation"),
        ("dev/train-like.jsonl", "train"),
        ("x-val.json", "validation"),
        ("eval/a.jsonl", "test"),
        ("retrained.jsonl", None),
        ("contest.jsonl", None),
        ("chats.jsonl", None),
    ],
)
def test_a_word_between_signs_names_the_split_of_a_file(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_folder_of_several_splits_is_not_read_as_one() -> None:
    files = ["s/train/a.jsonl", "s/test/a.jsonl"]
    assert of_split("s", files, "test", below="s") == ["s/test/a.jsonl"]
    with pytest.raises(DataError, match=r"holds the splits test \(1 files\), train \(1 files\).*path: s, split: train"):
        of_split("s", files, None, below="s")


def test_words_above_the_source_name_no_split() -> None:
    files = ["train/x/a.jsonl", "train/x/test.jsonl"]
    assert of_split("train/x", files, None, below="train/x") == files


def test_a_split_of_another_name_is_found_by_its_word() -> None:
    assert of_split("s", ["s/ja/a.jsonl", "s/en/a.jsonl"], "ja", below="s") == ["s/ja/a.jsonl"]


def test_no_file_is_of_two_splits() -> None:
    files = ["train/dev-tools.jsonl", "test/train-extra.jsonl", "train/b.jsonl", "test/c.jsonl"]
    found = {split: of_split("data", files, split, below="") for split in ("train", "validation", "test")}
    assert sorted(name for names in found.values() for name in names) == sorted(files)
    assert of_split("data", files, "dev", below="") == found["validation"]
    assert of_split("data", ["eval/a.jsonl", "test/a.jsonl"], "eval", below="") == ["eval/a.jsonl"]
