"""Names of files -> the split that each belongs to, as `datasets` finds it.

`datasets` (data_files.py, KEYWORDS_IN_PATH_NAME_BASE_PATTERNS, SPLIT_KEYWORDS) takes a file or
folder whose name has a split's word, delimited by anything but letters and digits:
`data/train-00000-of-00002.parquet`, `test/a.jsonl`.
"""

import re
from collections import Counter
from collections.abc import Sequence

from components.shared.errors import DataError

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def split_of(name: str) -> str | None:
    """The split of a file by its name below the source, the file's own name before its folders'."""
    for part in reversed(name.split("/")):
        for split, words in _WORDS.items():
            if any(_has_word(part, word) for word in words):
                return split
    return None


def of_split(source: str, files: Sequence[str], split: str | None, *, below: str) -> list[str]:
    """The files of the split that a source names; all of them where it names none and there are not
    several.

    `below` is what all names begin with, in which no word of a split counts.

    Raises:
        DataError: no file is of the split, or there are several splits and none is named.
    """
    splits = {name: split_of(name.removeprefix(below)) for name in files}
    counts = Counter(each for each in splits.values() if each is not None)
    there = ", ".join(f"{each} ({count} files)" for each, count in sorted(counts.items())) or "none"
    if split is not None:
        known = _named_by(split)
        if known == split:
            found = [name for name, each in splits.items() if each == split]
        else:
            found = [
                name
                for name, each in splits.items()
                if known in (None, each) and _is_below(name.removeprefix(below), split)
            ]
        if not found:
            raise DataError(
                f"{source}: holds no file of split {split!r}; splits that its file names say: "
                f"{there}"
            )
        return found
    if len(counts) > 1:
        raise DataError(
            f"{source}: holds the splits {there}, and it is not said which to read. Fix: write "
            f"[{{path: {source}, split: {_first(counts)}}}], or a pattern such as "
            f"{source.rstrip('/')}/train*"
        )
    return list(files)


def _named_by(word: str) -> str | None:
    """The split of which this is a word, if it is one."""
    return next((split for split, words in _WORDS.items() if word.lower() in words), None)


def _first(counts: Counter[str]) -> str:
    if "train" in counts:
        return "train"
    return min(counts)


def _has_word(part: str, word: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", part.lower()) is not None


def _is_below(name: str, split: str) -> bool:
    """Whether the word that a person wrote is in the name, for splits of other names."""
    return any(_has_word(part, re.escape(split.lower())) for part in name.split("/"))
